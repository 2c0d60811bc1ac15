import { z } from 'zod';

import { ClusterAddress } from './cluster.js';
import { ModelSpec } from './model.js';

export const InputFormat = z.enum(['auto', 'openai', 'jsonl', 'csv', 'parquet']);

/** Where the requests are and how to read them. */
export const InputSpec = z
  .strictObject({
    uri: z.string().min(1).describe('file:// or s3:// address, or an absolute path'),
    format: InputFormat.default('auto'),
    promptColumn: z.string().optional().describe('Column of a CSV, Parquet or simple JSONL input'),
    template: z.string().optional().describe('Prompt text with {column} placeholders'),
    limit: z.int().positive().optional().describe('Only the first N requests'),
  })
  .meta({ id: 'InputSpec' });

export const BatchLimits = z
  .strictObject({
    maxRows: z.int().positive().default(1024),
    maxTokens: z.int().positive().default(262_144).describe('Prompt plus maximum output tokens'),
  })
  .meta({ id: 'BatchLimits' });

/** Everything that decides what a run answers; written into its plan and never changed. */
export const RunSpec = z
  .strictObject({
    runId: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/),
    input: InputSpec,
    store: z.string().min(1).describe('Root of the store: absolute path or s3://bucket/prefix'),
    model: ModelSpec,
    sampling: z
      .record(z.string(), z.unknown())
      .default({})
      .describe('Defaults for every request body'),
    ranks: z.int().positive().default(1),
    onInvalid: z.enum(['refuse', 'record']).default('refuse'),
    batch: BatchLimits.prefault({}),
  })
  .meta({ id: 'RunSpec' });
export type RunSpec = z.infer<typeof RunSpec>;

export const RunState = z
  .enum([
    'validating',
    'in_progress',
    'finalizing',
    'completed',
    'failed',
    'expired',
    'cancelling',
    'cancelled',
    'paused',
  ])
  .meta({ id: 'RunState' });
export type RunState = z.infer<typeof RunState>;

/** One thing wrong with one line of the input. Never carries the prompt. */
export const InputProblem = z
  .strictObject({
    line: z.int().nonnegative().describe('1-based line (row for Parquet); 0 for the whole file'),
    customId: z.string().optional(),
    code: z.string().describe('Stable machine-readable code, e.g. invalid_json'),
    message: z.string(),
  })
  .meta({ id: 'InputProblem' });
export type InputProblem = z.infer<typeof InputProblem>;

export const PlanRunInput = z.strictObject({ spec: RunSpec }).meta({ id: 'PlanRunInput' });
export type PlanRunInput = z.infer<typeof PlanRunInput>;

/** The plan in numbers; the plan itself is in the store. */
export const PlanSummary = z
  .strictObject({
    runId: z.string(),
    rows: z.int().nonnegative(),
    invalidRows: z.int().nonnegative().describe('Rows recorded as errors without generation'),
    promptTokens: z.int().nonnegative(),
    maxOutputTokens: z.int().nonnegative(),
    inputBytes: z.int().nonnegative(),
    inputSha256: z.string(),
    batches: z.array(z.int().nonnegative()).describe('Number of batches of each rank'),
    rowsPerRank: z.array(z.int().nonnegative()),
    finished: z.boolean().describe('Whether a manifest is already there'),
  })
  .meta({ id: 'PlanSummary' });
export type PlanSummary = z.infer<typeof PlanSummary>;

/** Identifies one rank of one run in the store. */
export const RankProgressInput = z
  .strictObject({ runId: z.string(), store: z.string(), rank: z.int().nonnegative() })
  .meta({ id: 'RankProgressInput' });
export type RankProgressInput = z.infer<typeof RankProgressInput>;

export const RowCounts = z
  .strictObject({
    batches: z.int().nonnegative(),
    rows: z.int().nonnegative(),
    failedRows: z.int().nonnegative(),
    promptTokens: z.int().nonnegative(),
    completionTokens: z.int().nonnegative(),
  })
  .meta({ id: 'RowCounts' });
export type RowCounts = z.infer<typeof RowCounts>;

/** Consecutive batch numbers of one rank, both ends included. */
export const BatchRange = z
  .strictObject({ first: z.int().nonnegative(), last: z.int().nonnegative() })
  .meta({ id: 'BatchRange' });
export type BatchRange = z.infer<typeof BatchRange>;

/** Asks whether a store has room again. */
export const CheckStoreRoomInput = z
  .strictObject({
    store: z.string(),
    runId: z.string(),
    neededBytes: z
      .int()
      .nonnegative()
      .optional()
      .describe('Free space that is waited for, when it is known'),
  })
  .meta({ id: 'CheckStoreRoomInput' });
export type CheckStoreRoomInput = z.infer<typeof CheckStoreRoomInput>;

export const StoreRoom = z
  .strictObject({
    freeBytes: z.int().nonnegative().optional().describe('Absent where nobody can tell: a bucket'),
  })
  .meta({ id: 'StoreRoom' });
export type StoreRoom = z.infer<typeof StoreRoom>;

/** Asks whether the nodes of a cluster share a store with the Python worker. */
export const CheckStoreSharedInput = z
  .strictObject({
    store: z.string(),
    cluster: ClusterAddress,
    cpus: z
      .number()
      .nonnegative()
      .optional()
      .describe('Nodes with fewer CPUs do not use the store; absent: all do'),
    gpus: z.number().nonnegative().optional().describe('The same for GPUs'),
  })
  .meta({ id: 'CheckStoreSharedInput' });
export type CheckStoreSharedInput = z.infer<typeof CheckStoreSharedInput>;

export const StoreSharedBy = z
  .strictObject({ nodes: z.array(z.string()).describe('Names of the nodes that answered') })
  .meta({ id: 'StoreSharedBy' });
export type StoreSharedBy = z.infer<typeof StoreSharedBy>;

/** What the commits of a rank say: totals and the batches that are still missing. */
export const RankProgress = z
  .strictObject({
    committed: RowCounts,
    pending: z.array(BatchRange).describe('Batch numbers without a commit, ascending'),
  })
  .meta({ id: 'RankProgress' });
export type RankProgress = z.infer<typeof RankProgress>;

/** One batch for one engine. Rows are read from the store by byte range. */
export const GenerateBatchInput = z
  .strictObject({
    runId: z.string(),
    store: z.string(),
    rank: z.int().nonnegative(),
    batch: z.int().nonnegative(),
    specHash: z.string().describe('Model spec the run was planned for; an engine asserts it'),
    alone: z
      .boolean()
      .optional()
      .describe('Earlier attempts killed their engines: nothing else runs beside this one'),
  })
  .meta({ id: 'GenerateBatchInput' });
export type GenerateBatchInput = z.infer<typeof GenerateBatchInput>;

/** What engines were given more than once. So much at most was generated in vain: a row may not have been begun. */
export const RedoneWork = z
  .strictObject({
    rows: z.int().nonnegative(),
    tokens: z.int().nonnegative().describe('Completion tokens of these rows'),
    leftTokens: z
      .int()
      .nonnegative()
      .describe('Of the tokens: given back by engines that had to leave, as preempted ones have'),
  })
  .meta({ id: 'RedoneWork' });
export type RedoneWork = z.infer<typeof RedoneWork>;

export const GenerateBatchResult = z
  .strictObject({
    rank: z.int().nonnegative(),
    batch: z.int().nonnegative(),
    rows: z.int().nonnegative(),
    failedRows: z.int().nonnegative(),
    promptTokens: z.int().nonnegative(),
    completionTokens: z.int().nonnegative(),
    salvagedRows: z.int().nonnegative().describe('Rows taken over from earlier attempts'),
    generatedRows: z.int().nonnegative(),
    alreadyCommitted: z.boolean(),
    engine: z.string().describe('Fleet, slot and incarnation that answered'),
    seconds: z.number().nonnegative(),
    attempt: z
      .int()
      .positive()
      .optional()
      .describe('Attempt of the activity that answered, from 1'),
    redone: RedoneWork.optional().describe('Over all attempts; absent when there was nothing'),
  })
  .meta({ id: 'GenerateBatchResult' });
export type GenerateBatchResult = z.infer<typeof GenerateBatchResult>;

/** Heartbeat details of `generateBatch`: a hint for progress displays, never the truth. */
export const BatchHeartbeat = z
  .strictObject({
    engine: z.string(),
    rowsDone: z.int().nonnegative(),
    rows: z.int().nonnegative(),
    completionTokens: z.int().nonnegative(),
    trouble: z.string().optional().describe('What the attempt waits for, such as the store'),
  })
  .meta({ id: 'BatchHeartbeat' });
export type BatchHeartbeat = z.infer<typeof BatchHeartbeat>;

export const FinalizeRunInput = z
  .strictObject({
    runId: z.string(),
    store: z.string(),
    missing: z
      .enum(['refuse', 'batch_cancelled', 'batch_expired'])
      .default('refuse')
      .describe('What a row without a commit becomes'),
  })
  .meta({ id: 'FinalizeRunInput' });
export type FinalizeRunInput = z.infer<typeof FinalizeRunInput>;

export const FinalizeRunResult = z
  .strictObject({
    rows: z.int().nonnegative(),
    succeeded: z.int().nonnegative(),
    failed: z.int().nonnegative(),
    promptTokens: z.int().nonnegative(),
    completionTokens: z.int().nonnegative(),
    outputUri: z.string(),
    errorsUri: z.string(),
    manifestUri: z.string(),
  })
  .meta({ id: 'FinalizeRunResult' });
export type FinalizeRunResult = z.infer<typeof FinalizeRunResult>;
