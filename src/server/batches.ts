import path from 'node:path';

import { z } from 'zod';

import { liveBatch } from './batch-object.js';
import type { BatchState } from './batch-records.js';
import { BatchWorker, type WorkerOptions } from './batch-worker.js';
import { ApiError, noSuchBatch } from './errors.js';
import { isId, newId, timeOfId } from './ids.js';
import { type Page, type PageQuery, readPage } from './pages.js';
import { RecordFolder, UnreadableRecord } from './records.js';
import type { Batch, CreateBatch } from './schemas.js';
import type { Space, Spaces } from './spaces.js';

export interface BatchesOptions extends Omit<WorkerOptions, 'now'> {
  readonly spaces: Spaces;
  /** How long a batch may take. */
  readonly windowSeconds: number;
  /** What all files of a namespace may take together; absent: whatever the disk has. */
  readonly storedBytes?: number | undefined;
  readonly now?: () => number;
}

/** Milliseconds a client waits for news of a batch; then it gets what was known before. */
const NEWS_MS = 2_000;
/** Milliseconds for which news are new enough: clients may poll faster than that. */
const FRESH_MS = 500;

/** The batches of all namespaces: their records, and what is to be done about the open ones. */
export class Batches {
  /** One marker for each batch that has not ended, with its namespace: what a fresh server has to take up. */
  private readonly open: RecordFolder<{ namespace: string }>;
  private readonly turns = new Map<string, Promise<void>>();
  /** Why a batch waits: said once, not at every turn. */
  private readonly reasons = new Map<string, string>();
  private readonly worker: BatchWorker;
  private readonly now: () => number;

  constructor(private readonly options: BatchesOptions) {
    this.open = new RecordFolder(
      path.join(options.spaces.root, 'open'),
      z.object({ namespace: z.string() }),
    );
    this.now = options.now ?? Date.now;
    this.worker = new BatchWorker({ ...options, now: this.now });
  }

  /** @throws ApiError 403 when the files of the namespace take more than they may: results would come on top */
  async create(namespace: string, body: CreateBatch): Promise<Batch> {
    await this.space(namespace).files.checkRoom(0, this.options.storedBytes);
    const id = newId('batch', this.now());
    const createdAt = Math.floor(timeOfId(id) / 1000);
    const request = {
      id,
      inputFileId: body.input_file_id,
      endpoint: body.endpoint,
      completionWindow: body.completion_window,
      metadata: body.metadata ?? null,
      createdAt,
      expiresAt: createdAt + this.options.windowSeconds,
      outputSeconds: body.output_expires_after?.seconds ?? null,
    };
    // The marker first: a marker without a batch is swept, a batch without a marker would be forgotten.
    await this.open.create(id, { namespace });
    await this.space(namespace).batches.create(request);
    void this.advance(namespace, id);
    return liveBatch({ request, moments: {} }, undefined);
  }

  /** @throws ApiError 404 */
  async get(namespace: string, id: string): Promise<Batch> {
    if (!isId('batch', id)) throw noSuchBatch(id);
    await this.news(namespace, id);
    const state = await this.space(namespace).batches.load(id);
    if (state === undefined) throw noSuchBatch(id);
    return this.show(state);
  }

  /** Batches as they were last seen: a list of many asks Temporal nothing. */
  async list(namespace: string, query: PageQuery): Promise<Page<Batch>> {
    const { batches } = this.space(namespace);
    return readPage(await batches.ids(), query, async (id) => {
      const state = await batches.load(id).catch((error: unknown) => {
        if (!(error instanceof UnreadableRecord)) throw error;
        this.tellOnce(id, error.message, 'the record of a batch is not readable');
        return undefined;
      });
      return state && this.show(state);
    });
  }

  /**
   * Has a batch stop. What is done is kept.
   *
   * @throws ApiError 404, or 409 when it has ended otherwise
   */
  async cancel(namespace: string, id: string): Promise<Batch> {
    const batch = await this.get(namespace, id);
    const { status } = batch;
    if (status === 'cancelled') return batch;
    if (status === 'completed' || status === 'failed' || status === 'expired') {
      throw new ApiError(409, `Cannot cancel a batch with status '${status}'.`);
    }
    const now = Math.floor(this.now() / 1000);
    await this.space(namespace).batches.saw(id, 'cancelling', now);
    await this.news(namespace, id, 0);
    return this.get(namespace, id);
  }

  /**
   * Takes up every open batch, a few at a time; those of servers that are no more are among them.
   *
   * @param signal ends it after those that are being looked after
   */
  async advanceAll(signal?: AbortSignal): Promise<void> {
    const ids = await this.open.names();
    const next = ids.values();
    const worker = async (): Promise<void> => {
      for (const id of next) {
        if (signal?.aborted) return;
        const marker = await this.open.read(id).catch((error: unknown) => {
          this.tellOnce(id, (error as Error).message, 'the marker of a batch is not readable');
          return undefined;
        });
        if (marker !== undefined && isId('batch', id)) await this.advance(marker.namespace, id);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  }

  /** Does what is to be done next about one batch. Never throws: what fails is tried again at the next turn. */
  private async advance(namespace: string, id: string): Promise<void> {
    const running = this.turns.get(id);
    if (running !== undefined) return running;
    const turn = this.turn(this.space(namespace), id).then(
      () => void this.reasons.delete(id),
      (error: unknown) => this.tellOnce(id, (error as Error).message),
    );
    this.turns.set(id, turn);
    await turn;
    this.turns.delete(id);
  }

  private tellOnce(id: string, reason: string, message = 'the batch waits for another try'): void {
    if (this.reasons.get(id) === reason) return;
    this.reasons.set(id, reason);
    this.options.log.warn({ batch: id, reason }, message);
  }

  private async turn(space: Space, id: string): Promise<void> {
    const state = await space.batches.load(id);
    const unknown = state === undefined && this.now() - timeOfId(id) > MARKER_MS;
    const ended = state !== undefined && (state.ended ?? (await this.worker.turn(space, state)));
    if (ended || unknown) await this.close(id);
  }

  private async close(id: string): Promise<void> {
    await this.open.remove(id);
    this.worker.forget(id);
  }

  /** Waits for news of a batch, but not for long: a client that polls is answered while Temporal is away. */
  private async news(namespace: string, id: string, freshMs = FRESH_MS): Promise<void> {
    const fresh = this.now() - this.worker.seenAt(id) < freshMs;
    if (fresh || (await this.open.read(id))?.namespace !== namespace) return;
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, NEWS_MS);
    });
    await Promise.race([this.advance(namespace, id), patience]);
    clearTimeout(timer);
  }

  private show(state: BatchState): Batch {
    if (state.ended !== undefined) return state.ended;
    return liveBatch(state, this.worker.lastSeen(state.request.id));
  }

  private space(namespace: string): Space {
    return this.options.spaces.of(namespace);
  }
}

/** Batches that are looked after at a time: enough that one which is slow to answer holds up no other. */
const AT_ONCE = 8;
/** A marker this old, in milliseconds, whose batch is not there belongs to a creation that was interrupted. */
const MARKER_MS = 60_000;
