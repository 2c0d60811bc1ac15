/**
 * Rankflow from a program: start runs, watch them, read what fleets and clusters are like.
 *
 * ```ts
 * const prepared = await prepareRun({ input: { uri: 'requests.jsonl' }, model: { model: 'org/model' } });
 * const result = await withClient(async (client) => {
 *   const { runId } = await startRun(client, prepared);
 *   return runResult(client, runId);
 * });
 * ```
 */
export { connect, type ConnectOptions, temporalConfigured, withClient } from './connection.js';
export { ClientError, describeFailure, EXIT, type Failure, type FailureType } from './errors.js';
export { prepareRun, type PreparedRun, type RunOptions } from './inference.js';
export {
  cancelRun,
  findRun,
  finishedRun,
  listAllRuns,
  listRuns,
  type RunListing,
  runResult,
  startRun,
  type StartedRun,
} from './runs.js';
export { storedResult, storedSnapshot, type StoredResult } from './stored.js';
export { collectGarbage, type Garbage, type GarbageRules, type GarbageStep } from './gc.js';
export { verifyRun, type Verification } from './verify.js';
export { costOf, type NodeCost, type Prices, type RunCost } from './cost.js';
export { runSnapshot, watchRun } from './progress.js';
export {
  type ClusterView,
  type EngineView,
  isOver,
  type Phase,
  type RunSnapshot,
  type Trouble,
} from './snapshot.js';
export {
  changeNodes,
  checkClusterSpec,
  clusterStatus,
  cordonNodes,
  ensureCluster,
  listClusters,
  stopCluster,
  takeClusterDown,
} from './clusters.js';
export { drainFleet, fleetStatus, listFleets, scaleFleet, stopFleet } from './fleets.js';
export { steerRun } from './steering.js';
export {
  backfillSchedule,
  checkSchedule,
  createSchedule,
  deleteSchedule,
  describeSchedule,
  listSchedules,
  pauseSchedule,
  resumeSchedule,
  type ScheduleDefinition,
  type ScheduleView,
  triggerSchedule,
  updateSchedule,
} from './schedules.js';
export { prepareRetry, retryIdOf } from './retry.js';
export { prepareJob, type JobOptions, type PreparedJob } from './job-spec.js';
export { jobResult, type JobView, jobView, listJobs, startJob, stopJob } from './jobs.js';
