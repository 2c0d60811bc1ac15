import path from 'node:path';

import { z } from 'zod';

import { endedBatch, liveBatch, type ResultIds } from './batch-object.js';
import { type BatchEnd, newMoments, nextStep, type Seen, serverError } from './batch-plan.js';
import type { BatchState } from './batch-records.js';
import { ApiError, noSuchBatch } from './errors.js';
import { derivedId, isId, newId, timeOfId } from './ids.js';
import { type Inspection, inspectBatch } from './inspect.js';
import { type Page, type PageQuery, readPage } from './pages.js';
import { RecordFolder } from './records.js';
import { readResults, type RunResults } from './results.js';
import { NotNow, type Runs } from './runs.js';
import type { Batch, BatchError, CreateBatch } from './schemas.js';
import type { Space, Spaces } from './spaces.js';

/** The part of a logger that is used here. What is logged names batches, never what is in them. */
export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface BatchesOptions {
  /** Root of the store that the runs write to: a folder. */
  readonly store: string;
  readonly spaces: Spaces;
  readonly runs: Runs;
  /** Ids of the models that are served. */
  readonly models: ReadonlySet<string>;
  readonly maxRows: number;
  /** How long a batch may take. */
  readonly windowSeconds: number;
  readonly log: Log;
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
  private readonly seen = new Map<string, { readonly at: number; readonly seen: Seen }>();
  private readonly inspected = new Map<string, Inspection>();
  /** Batches whose runs were told to stop: once is enough. */
  private readonly stopped = new Set<string>();
  /** Why a batch waits: said once, not at every turn. */
  private readonly reasons = new Map<string, string>();
  private readonly now: () => number;

  constructor(private readonly options: BatchesOptions) {
    this.open = new RecordFolder(
      path.join(options.spaces.root, 'open'),
      z.object({ namespace: z.string() }),
    );
    this.now = options.now ?? Date.now;
  }

  async create(namespace: string, body: CreateBatch): Promise<Batch> {
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
      const state = await batches.load(id);
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
    await this.space(namespace).batches.saw(id, 'cancelling', this.seconds());
    this.seen.delete(id);
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
        const marker = await this.open.read(id);
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

  private tellOnce(id: string, reason: string): void {
    if (this.reasons.get(id) === reason) return;
    this.reasons.set(id, reason);
    this.options.log.warn({ batch: id, reason }, 'the batch waits for another try');
  }

  private async turn(space: Space, id: string): Promise<void> {
    const state = await space.batches.load(id);
    if (state === undefined || state.ended !== undefined) {
      const young = this.now() - timeOfId(id) < MARKER_MS;
      if (state !== undefined || !young) await this.close(id);
      return;
    }
    const seen = state.started === undefined ? {} : await this.look(id);
    this.seen.set(id, { at: this.now(), seen });
    for (const moment of newMoments(state, seen)) {
      await space.batches.saw(id, moment, this.seconds());
    }
    const step = nextStep(state, seen, this.seconds());
    if (step.do === 'start') await this.start(space, state);
    if (step.do === 'stop') {
      await space.batches.saw(id, step.why, this.seconds());
      if (!this.stopped.has(id)) await this.options.runs.stop(id);
      this.stopped.add(id);
    }
    if (step.do === 'end') {
      // A start that was interrupted may have left a run that is not recorded.
      if (state.started === undefined) await this.options.runs.stop(id);
      await this.end(space, (await space.batches.load(id)) ?? state, step.end);
    }
  }

  private async look(id: string): Promise<Seen> {
    const results = await readResults(this.options.store, id);
    return results === undefined ? { run: await this.options.runs.look(id) } : { results };
  }

  private async start(space: Space, state: BatchState): Promise<void> {
    const { id, inputFileId } = state.request;
    const input = await space.files.content(inputFileId).catch((error: unknown) => {
      if (error instanceof ApiError) return undefined;
      throw error;
    });
    if (input === undefined) return this.fail(space, state, [missingInput(inputFileId)]);
    const inspection = await this.inspect(state, input.path);
    if ('problems' in inspection) return this.fail(space, state, inspection.problems);
    const { model, rows } = inspection;
    try {
      await this.options.runs.start(id, input.path, model);
    } catch (error) {
      if (error instanceof NotNow) throw error;
      const reason = (error as Error).message;
      this.options.log.error({ batch: id, reason }, 'the run of a batch cannot be started');
      return this.fail(space, state, [serverError()]);
    }
    await space.batches.started(id, { model, rows });
    this.inspected.delete(id);
    this.options.log.info({ batch: id, model, rows }, 'started the run of a batch');
  }

  /** A large input is read once, also when its start has to wait. */
  private async inspect({ request }: BatchState, file: string): Promise<Inspection> {
    const { models, maxRows } = this.options;
    const known = this.inspected.get(request.id);
    if (known !== undefined) return known;
    const found = await inspectBatch(file, { endpoint: request.endpoint, models, maxRows });
    this.inspected.set(request.id, found);
    return found;
  }

  private async fail(
    space: Space,
    state: BatchState,
    errors: readonly BatchError[],
  ): Promise<void> {
    await this.end(space, state, { status: 'failed', at: this.seconds(), errors });
  }

  private async end(space: Space, state: BatchState, end: BatchEnd): Promise<void> {
    const { id } = state.request;
    const files = await addResults(space, state, end.results);
    await space.batches.end(endedBatch(state, end, files));
    await this.close(id);
    this.options.log.info({ batch: id, status: end.status }, 'the batch has ended');
  }

  private async close(id: string): Promise<void> {
    await this.open.remove(id);
    this.seen.delete(id);
    this.inspected.delete(id);
    this.stopped.delete(id);
  }

  /** Waits for news of a batch, but not for long: a client that polls is answered while Temporal is away. */
  private async news(namespace: string, id: string): Promise<void> {
    const fresh = this.now() - (this.seen.get(id)?.at ?? 0) < FRESH_MS;
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
    const run = this.seen.get(state.request.id)?.seen.run;
    return liveBatch(state, run === 'gone' ? undefined : run);
  }

  private space(namespace: string): Space {
    return this.options.spaces.of(namespace);
  }

  private seconds(): number {
    return Math.floor(this.now() / 1000);
  }
}

/** Batches that are looked after at a time: enough that one which is slow to answer holds up no other. */
const AT_ONCE = 8;
/** A marker this old, in milliseconds, whose batch is not there belongs to a creation that was interrupted. */
const MARKER_MS = 60_000;

/** Adds what a run wrote to the files; ids that derive from it make doing it twice the same as once. */
async function addResults(
  { files }: Space,
  { request }: BatchState,
  results: RunResults | undefined,
): Promise<ResultIds> {
  const add = async (kind: 'output' | 'errors', name: string): Promise<string | null> => {
    if (results === undefined || results[kind].rows === 0) return null;
    const id = derivedId('file', results.at, request.id, kind);
    await files.addResult({
      id,
      filename: `${request.id}_${name}.jsonl`,
      purpose: 'batch_output',
      bytes: results[kind].size,
      expiresAt:
        request.outputSeconds === null
          ? null
          : Math.floor(results.at / 1000) + request.outputSeconds,
      result: results[kind].path,
    });
    return id;
  };
  return { output: await add('output', 'output'), errors: await add('errors', 'error') };
}

const missingInput = (id: string): BatchError => ({
  code: 'invalid_request',
  message: `Cannot find file ${id}, or this key does not have access to it.`,
  param: 'file_id',
  line: null,
});
