import type { Client } from '@temporalio/client';

import { ClientError, describeFailure, type FailureType, isTransient } from '../client/errors.js';
import { prepareRun, type PreparedRun, type RunOptions } from '../client/inference.js';
import { checkStoreSpace } from '../client/input.js';
import { runSnapshot } from '../client/progress.js';
import { cancelRun, findRun, type StartedRun } from '../client/runs.js';
import type { RunSnapshot } from '../client/snapshot.js';

/** How the runs of a served model are made: everything but their input, their id and their time. */
export type ModelOptions = Omit<RunOptions, 'input' | 'runId' | 'fresh' | 'deadline'>;

/** The runs behind batches: the run of a batch has the batch's id. */
export interface Runs {
  /**
   * Starts the run of a batch; one that was started before is left alone.
   *
   * @param expiresAt seconds since the epoch: what is not done by then is an error line `batch_expired`
   * @throws NotNow when another try later may work; what else it throws will not change
   */
  start(batchId: string, input: string, model: string, expiresAt: number): Promise<void>;
  /** What a run is like; `gone` when there is none. @throws when Temporal does not answer */
  look(batchId: string): Promise<RunSnapshot | 'gone'>;
  /** Has a run stop and write what is done; quiet when there is none or it has ended. */
  stop(batchId: string): Promise<void>;
  /** @throws when Temporal does not answer */
  ping(): Promise<void>;
}

/** A failure that may pass by itself. */
export class NotNow extends Error {
  override readonly name = 'NotNow';
}

const PASSING: ReadonlySet<FailureType> = new Set<FailureType>([
  'Unreachable',
  'StoreUnavailable',
  'StoreFull',
  'ClusterUnavailable',
  'ClusterMissing',
]);

/** Milliseconds for a ping: Temporal answers in tens of them. */
const PING_TIMEOUT_MS = 3_000;

/** Batches as ordinary runs, started the way the command line starts them. */
export class TemporalRuns implements Runs {
  constructor(
    private readonly client: Client,
    private readonly models: ReadonlyMap<string, ModelOptions>,
    private readonly startRun: (
      client: Client,
      run: PreparedRun,
      options: ModelOptions,
    ) => Promise<StartedRun>,
  ) {}

  async start(batchId: string, input: string, model: string, expiresAt: number): Promise<void> {
    const options = this.models.get(model);
    if (options === undefined) throw new ClientError('Usage', `${model} is not served any more.`);
    try {
      // Starting a run again would continue one that failed, and a batch that failed stays failed.
      if ((await findRun(this.client, batchId)) !== undefined) return;
      const uri = input;
      const run = await prepareRun({
        ...options,
        input: { uri, format: 'openai' },
        runId: batchId,
        deadline: new Date(expiresAt * 1000).toISOString(),
      });
      await checkRoom(run);
      await this.startRun(this.client, run, options);
    } catch (error) {
      // Its time ran out while it was prepared: the next look ends it as expired, not as failed.
      const late = expiresAt * 1000 <= Date.now();
      if (late || isTransient(error) || PASSING.has(describeFailure(error).type)) {
        throw new NotNow(describeFailure(error).message, { cause: error });
      }
      throw error;
    }
  }

  async look(batchId: string): Promise<RunSnapshot | 'gone'> {
    try {
      return await runSnapshot(this.client, batchId);
    } catch (error) {
      if (describeFailure(error).type === 'NotFound') return 'gone';
      throw error;
    }
  }

  async stop(batchId: string): Promise<void> {
    if ((await findRun(this.client, batchId)) !== undefined) await cancelRun(this.client, batchId);
  }

  async ping(): Promise<void> {
    const { connection } = this.client;
    await connection.withDeadline(Date.now() + PING_TIMEOUT_MS, () =>
      connection.workflowService.getSystemInfo({}),
    );
  }
}

/** A store without room gets some sooner or later: the batch waits for it, as a running one does. */
async function checkRoom({ inference, inputBytes }: PreparedRun): Promise<void> {
  try {
    await checkStoreSpace(inference.run.store, inputBytes ?? 0);
  } catch (error) {
    throw new ClientError('StoreFull', describeFailure(error).message, { cause: error });
  }
}
