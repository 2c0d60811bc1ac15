/**
 * Every name that crosses a process boundary: task queues, workflow ids, activity, signal, query and update
 * types. The Python twin is `python-activities/rankflow/contracts/names.py`; a test holds the two together.
 */

/** Task queue of the TypeScript control worker: all workflows and the cluster activities. */
export const CONTROL_QUEUE = 'rankflow-control';
/** Task queue of the Python control worker: store, rows and Ray activities. */
export const PYTHON_QUEUE = 'rankflow-python';

/** Name of Temporal's worker deployment: the builds of the control worker are its versions. */
export const DEPLOYMENT = 'rankflow';

/** Ray namespace that holds every engine actor. */
export const RAY_NAMESPACE = 'rankflow';

/** Label with its id that Ray gives every node. */
export const NODE_ID_LABEL = 'ray.io/node-id';

/** Task queue that all engines of one fleet pull from. The spec hash keeps engines of another model away. */
export function fleetQueue(fleet: string, specHash: string): string {
  return `fleet-${fleet}-${specHash.slice(0, 12)}`;
}

/**
 * Queue of one incarnation of one engine, for what is meant for it alone (canary, drain).
 *
 * @param incarnation `<first 8 characters of the Ray node id>-<actor pid>`
 */
export function engineQueue(
  fleet: string,
  specHash: string,
  slot: number,
  incarnation: string,
): string {
  return `${fleetQueue(fleet, specHash)}-slot-${slot}-${incarnation}`;
}

/**
 * Queue of the engine with this index, whatever its incarnation: rank affinity sends a rank's batches here. An
 * engine that replaces another has its index, else that of its slot.
 */
export function slotQueue(fleet: string, specHash: string, index: number): string {
  return `${fleetQueue(fleet, specHash)}-slot-${index}`;
}

/** Name of the detached Ray actor that is slot `slot` of a fleet. */
export function engineActorName(fleet: string, specHash: string, slot: number): string {
  return `${fleetQueue(fleet, specHash)}-slot-${slot}`;
}

/** Whether an actor of this name is an engine. */
export const isEngineActor = (name: string): boolean =>
  /^fleet-.+-[0-9a-f]{12}-slot-\d+$/u.test(name);

export const clusterWorkflowId = (name: string): string => `cluster/${name}`;
export const fleetWorkflowId = (name: string): string => `fleet/${name}`;
export const runWorkflowId = (runId: string): string => `run/${runId}`;
export const rankWorkflowId = (runId: string, rank: number): string => `run/${runId}/rank-${rank}`;
export const inferenceWorkflowId = (runId: string): string => `inference/${runId}`;
export const jobWorkflowId = (jobId: string): string => `job/${jobId}`;

/** Id of one attempt of a job in Ray, from 1: submitting it twice starts it once. */
export const submissionIdOf = (jobId: string, attempt: number): string => `${jobId}-a${attempt}`;

export const scheduleId = (name: string): string => `schedule/${name}`;
/** Temporal adds the time that each start is for. */
export const scheduledWorkflowId = (schedule: string): string => `scheduled/${schedule}`;
export const notifyWorkflowId = (schedule: string, runId: string, start: string): string =>
  `notify/${schedule}/${runId}/${start.slice(0, 8)}`;

/** What a query fails with that comes between two workflow tasks of a workflow: a moment later it is answered. */
export const ASK_AGAIN = 'The workflow is about to hear what has happened: ask again.';

/** Workflow types, as registered by the control worker. */
export const WORKFLOW = {
  cluster: 'clusterWorkflow',
  fleet: 'fleetWorkflow',
  run: 'runWorkflow',
  rank: 'rankWorkflow',
  inference: 'inferenceWorkflow',
  scheduledRun: 'scheduledRunWorkflow',
  notify: 'notifyWorkflow',
  job: 'jobWorkflow',
} as const;

/** Activities of the Python control worker, on `PYTHON_QUEUE`. */
export const PYTHON_ACTIVITY = {
  planRun: 'planRun',
  rankProgress: 'rankProgress',
  finalizeRun: 'finalizeRun',
  checkStoreRoom: 'checkStoreRoom',
  checkStoreShared: 'checkStoreShared',
  checkEngineArguments: 'checkEngineArguments',
  executeFleetPlan: 'executeFleetPlan',
} as const;

/** Activities of an engine: `generateBatch` on the fleet's (or slot's) queue, the others on the engine's own. */
export const ENGINE_ACTIVITY = {
  generateBatch: 'generateBatch',
  canary: 'canary',
  drain: 'drain',
} as const;

/** Update, query and signal types. */
export const UPDATE = {
  ensureCluster: 'ensureCluster',
  stopCluster: 'stopCluster',
  changeNodes: 'changeNodes',
  cordonNodes: 'cordonNodes',
  ensureFleet: 'ensureFleet',
  stopFleet: 'stopFleet',
  scaleFleet: 'scaleFleet',
  drainFleet: 'drainFleet',
  steerRun: 'steerRun',
} as const;
export const QUERY = { status: 'status', progress: 'progress' } as const;
export const SIGNAL = {
  cancelRun: 'cancelRun',
  rankPaused: 'rankPaused',
  /** From a rank to its run, and from a run to its inference: how far it is. */
  rankNumbers: 'rankNumbers',
  runNumbers: 'runNumbers',
  preemptionNotice: 'preemptionNotice',
  /** To a fleet, by hand: a number of engines. */
  scale: 'scale',
  /** To a run, by hand. */
  pause: 'pause',
  resume: 'resume',
  drain: 'drain',
  /** From a run to its ranks, and from an inference to its run. */
  hold: 'hold',
  /** From a fleet to those that use it, and on to the ranks. */
  fleetSize: 'fleetSize',
  /** From a fleet to those that use it: for people, how many of its engines are ready. */
  fleetReady: 'fleetReady',
  stopJob: 'stopJob',
} as const;
