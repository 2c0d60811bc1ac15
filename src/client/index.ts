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
export { verifyRun, type Verification } from './verify.js';
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
  ensureCluster,
  listClusters,
  stopCluster,
  takeClusterDown,
} from './clusters.js';
export { fleetStatus, listFleets, stopFleet } from './fleets.js';
