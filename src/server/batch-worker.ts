import type { RunSnapshot } from '../client/snapshot.js';
import { endedBatch, type ResultIds } from './batch-object.js';
import { type BatchEnd, newMoments, nextStep, type Seen, serverError } from './batch-plan.js';
import type { BatchState } from './batch-records.js';
import { ApiError } from './errors.js';
import { derivedId } from './ids.js';
import { type Inspection, inspectBatch } from './inspect.js';
import { readResults, type RunResults } from './results.js';
import { NotNow, type Runs } from './runs.js';
import type { BatchError } from './schemas.js';
import type { Space } from './spaces.js';

/** The part of a logger that is used here. What is logged names batches, never what is in them. */
export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface WorkerOptions {
  /** Root of the store that the runs write to: a folder. */
  readonly store: string;
  readonly runs: Runs;
  /** Ids of the models that are served. */
  readonly models: ReadonlySet<string>;
  readonly maxRows: number;
  readonly log: Log;
  readonly now: () => number;
}

/** Looks at the run of a batch, plans the next step and takes it: observe, plan, execute. */
export class BatchWorker {
  private readonly views = new Map<string, { readonly at: number; readonly seen: Seen }>();
  private readonly inspected = new Map<string, Inspection>();
  /** Batches whose runs were told to stop: once is enough. */
  private readonly stopped = new Set<string>();

  constructor(private readonly options: WorkerOptions) {}

  /**
   * Does what is to be done next about a batch. What it did before a crash or a failure is not done twice.
   *
   * @returns whether the batch has ended
   * @throws when it could not be done now
   */
  async turn(space: Space, state: BatchState): Promise<boolean> {
    const { id } = state.request;
    const seen = state.started === undefined ? {} : await this.look(id);
    this.views.set(id, { at: this.options.now(), seen });
    for (const moment of newMoments(state, seen)) {
      await space.batches.saw(id, moment, this.seconds());
    }
    const step = nextStep(state, seen, this.seconds());
    if (step.do === 'wait') return false;
    if (step.do === 'start') return this.start(space, state);
    if (step.do === 'expire') {
      await space.batches.saw(id, 'expiring', this.seconds());
      return false;
    }
    if (step.do === 'stop') {
      await space.batches.saw(id, step.why, this.seconds());
      if (!this.stopped.has(id)) await this.options.runs.stop(id);
      this.stopped.add(id);
      return false;
    }
    // A start that was interrupted may have left a run that is not recorded.
    if (state.started === undefined) await this.options.runs.stop(id);
    return this.end(space, (await space.batches.load(id)) ?? state, step.end);
  }

  /** The run of a batch as it was last seen. */
  lastSeen(id: string): RunSnapshot | undefined {
    const run = this.views.get(id)?.seen.run;
    return run === 'gone' ? undefined : run;
  }

  /** Milliseconds since the epoch at which the batch was last looked at. */
  seenAt(id: string): number {
    return this.views.get(id)?.at ?? 0;
  }

  forget(id: string): void {
    this.views.delete(id);
    this.inspected.delete(id);
    this.stopped.delete(id);
  }

  private async look(id: string): Promise<Seen> {
    const results = await readResults(this.options.store, id);
    return results === undefined ? { run: await this.options.runs.look(id) } : { results };
  }

  private async start(space: Space, state: BatchState): Promise<boolean> {
    const { id, inputFileId, expiresAt } = state.request;
    const input = await space.files.content(inputFileId).catch((error: unknown) => {
      if (error instanceof ApiError) return undefined;
      throw error;
    });
    if (input === undefined) return this.fail(space, state, [missingInput(inputFileId)]);
    const inspection = await this.inspect(state, input.path);
    if ('problems' in inspection) return this.fail(space, state, inspection.problems);
    const { model, rows } = inspection;
    try {
      await this.options.runs.start(id, input.path, model, expiresAt);
    } catch (error) {
      if (error instanceof NotNow) throw error;
      const reason = (error as Error).message;
      this.options.log.error({ batch: id, reason }, 'the run of a batch cannot be started');
      return this.fail(space, state, [serverError()]);
    }
    await space.batches.started(id, { model, rows });
    this.inspected.delete(id);
    this.options.log.info({ batch: id, model, rows }, 'started the run of a batch');
    return false;
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
  ): Promise<boolean> {
    return this.end(space, state, { status: 'failed', at: this.seconds(), errors });
  }

  private async end(space: Space, state: BatchState, end: BatchEnd): Promise<boolean> {
    const { id } = state.request;
    const files = await addResults(space, state, end.results);
    await space.batches.end(endedBatch(state, end, files));
    this.options.log.info({ batch: id, status: end.status }, 'the batch has ended');
    return true;
  }

  private seconds(): number {
    return Math.floor(this.options.now() / 1000);
  }
}

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
