import { Context } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';

import type { PythonActivities } from '../../src/contracts/activities.js';
import type { InferenceInput } from '../../src/contracts/inference.js';
import type {
  CheckStoreRoomInput,
  CheckStoreSharedInput,
  FinalizeRunInput,
  FinalizeRunResult,
  GenerateBatchInput,
  GenerateBatchResult,
  PlanSummary,
  RankProgress,
  RunSpec,
} from '../../src/contracts/run.js';

/** Rows of every batch of a fake run. */
export const ROWS_PER_BATCH = 10;

/** A run without prompts: which batches there are and which are committed. Stands in for store and engines. */
export class FakeRun {
  readonly committed = new Map<string, GenerateBatchResult>();
  readonly attempts: string[] = [];
  readonly finalized: FinalizeRunInput['missing'][] = [];
  inFlight = 0;
  mostInFlight = 0;
  /** Called at the start of each batch; may throw or wait. */
  onBatch: (input: GenerateBatchInput, attempt: number) => Promise<void> = async () => {};
  onPlan: () => Promise<void> | void = () => {};
  onFinalize: () => void = () => {};
  onFinalized: (input: FinalizeRunInput, result: FinalizeRunResult) => void = () => {};
  /** Whether the store has no room: only looks notice by themselves. */
  full = false;
  readonly looks: CheckStoreRoomInput[] = [];
  /** What a look at the store of the nodes fails with. */
  unshared: ApplicationFailure | undefined;
  readonly sharing: CheckStoreSharedInput[] = [];

  constructor(readonly batches: readonly number[]) {}

  /** As if an earlier try had committed the first batch of rank 0. */
  hasBegun(): void {
    this.committed.set('0/0', resultOf({ rank: 0, batch: 0 }, 1));
  }

  /** Has batches wait from now on. Returns what lets them go on. */
  holdBatches(): () => void {
    let open = (): void => {};
    const opened = new Promise<void>((resolve) => (open = resolve));
    this.onBatch = async () => opened;
    return open;
  }

  readonly summary = (): PlanSummary => {
    const rowsPerRank = this.batches.map((count) => count * ROWS_PER_BATCH);
    const rows = rowsPerRank.reduce((sum, count) => sum + count, 0);
    return {
      runId: 'fake',
      rows,
      invalidRows: 0,
      promptTokens: rows * 5,
      maxOutputTokens: rows * 8,
      inputBytes: rows * 100,
      inputSha256: '0'.repeat(64),
      batches: [...this.batches],
      rowsPerRank,
      finished: this.finalized.length > 0,
    };
  };

  readonly python: Omit<PythonActivities, 'executeFleetPlan'> = {
    planRun: async () => {
      await this.onPlan();
      return this.summary();
    },
    checkEngineArguments: async () => ({ maxModelLen: 2048, architecture: 'Fake' }),
    rankProgress: async ({ rank }) => this.progressOf(rank),
    finalizeRun: async (input) => {
      this.onFinalize();
      const result = this.finalize(input.missing);
      this.onFinalized(input, result);
      return result;
    },
    checkStoreShared: async (input) => {
      this.sharing.push(input);
      if (this.unshared) throw this.unshared;
      return { nodes: [] };
    },
    checkStoreRoom: async (input) => {
      this.looks.push(input);
      if (this.full) throw ApplicationFailure.retryable('no room yet', 'StoreFull');
      return {};
    },
  };

  readonly generateBatch = async (input: GenerateBatchInput): Promise<GenerateBatchResult> => {
    const context = Context.current();
    const { attempt } = context.info;
    this.attempts.push(`${input.rank}/${input.batch}`);
    this.inFlight += 1;
    this.mostInFlight = Math.max(this.mostInFlight, this.inFlight);
    const beat = setInterval(() => context.heartbeat(), 100);
    try {
      await Promise.race([this.onBatch(input, attempt), context.cancelled]);
      const result = resultOf(input, attempt);
      this.committed.set(`${input.rank}/${input.batch}`, result);
      return result;
    } finally {
      clearInterval(beat);
      this.inFlight -= 1;
    }
  };

  private progressOf(rank: number): RankProgress {
    const done = [...this.committed.values()].filter((result) => result.rank === rank);
    const missing = Array.from({ length: this.batches[rank] ?? 0 }, (_, batch) => batch).filter(
      (batch) => !this.committed.has(`${rank}/${batch}`),
    );
    return {
      committed: {
        batches: done.length,
        rows: done.length * ROWS_PER_BATCH,
        failedRows: 0,
        promptTokens: done.length * 50,
        completionTokens: done.length * 80,
      },
      pending: missing.map((batch) => ({ first: batch, last: batch })),
    };
  }

  private finalize(missing: FinalizeRunInput['missing']): FinalizeRunResult {
    const { rows } = this.summary();
    const succeeded = this.committed.size * ROWS_PER_BATCH;
    if (missing === 'refuse' && succeeded < rows) {
      throw ApplicationFailure.nonRetryable('rows are missing', 'PlanCorrupt');
    }
    this.finalized.push(missing);
    return {
      rows,
      succeeded,
      failed: rows - succeeded,
      promptTokens: succeeded * 5,
      completionTokens: succeeded * 8,
      outputUri: 'file:///output.jsonl',
      errorsUri: 'file:///errors.jsonl',
      manifestUri: 'file:///manifest.json',
    };
  }
}

function resultOf(
  { rank, batch }: Pick<GenerateBatchInput, 'rank' | 'batch'>,
  attempt: number,
): GenerateBatchResult {
  const salvagedRows = attempt > 1 ? 4 : 0;
  return {
    rank,
    batch,
    rows: ROWS_PER_BATCH,
    failedRows: 0,
    promptTokens: 50,
    completionTokens: 80,
    salvagedRows,
    generatedRows: ROWS_PER_BATCH - salvagedRows,
    alreadyCommitted: false,
    engine: 'fake',
    seconds: 0.1,
    attempt,
    ...(attempt > 1 && { redone: { rows: 2, tokens: 16, leftTokens: 8 } }),
  };
}

export const fakeSpec = (runId: string, ranks: number): RunSpec => ({
  runId,
  input: { uri: '/input.jsonl', format: 'auto' },
  store: '/store',
  model: fakeModel,
  sampling: {},
  ranks,
  onInvalid: 'refuse',
  batch: { maxRows: 1024, maxTokens: 262_144 },
});

export const fakeModel: RunSpec['model'] = {
  model: 'fake-model',
  dtype: 'auto',
  tensorParallelSize: 1,
  pipelineParallelSize: 1,
  cpusPerEngine: 1,
  gpusPerEngine: 0,
  engineArgs: {},
  backend: 'simulated',
};

export const SPEC_HASH = 'abcdef0123456789';

/** What a schedule runs: its run id and input come from the patterns. */
export const fakeTemplate = (store: string): InferenceInput => ({
  run: { ...fakeSpec('template', 1), store },
  specHash: SPEC_HASH,
  cluster: { name: 'ray', nodes: { provider: 'local', workers: 0 } },
  fleet: { name: 'models', engines: 1, maxConcurrentBatches: 2 },
  affinity: 'pull',
  keep: true,
});
