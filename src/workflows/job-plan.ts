import type { AttemptOutcome, JobSpec, KeptResult } from '../contracts/job.js';
import type { RayNode } from '../contracts/activities.js';
import { NODE_ID_LABEL, submissionIdOf } from '../contracts/names.js';
import type { Problem } from '../contracts/workflows.js';

/** What an attempt's end means for the job. */
export type Verdict =
  | { readonly kind: 'succeeded'; readonly result?: KeptResult }
  | { readonly kind: 'stopped' }
  /** The script failed by itself. */
  | { readonly kind: 'user'; readonly problem: Problem }
  /** Something below the script was lost. */
  | { readonly kind: 'infrastructure'; readonly problem: Problem }
  /** It may still run: nobody could ask. */
  | { readonly kind: 'unreachable'; readonly problem: Problem };

/** What is counted from attempt to attempt. */
export interface JobCounts {
  /** Attempts that failed by themselves. */
  readonly failures: number;
  /** Attempts that were lost. */
  readonly losses: number;
  /** Waits in a row in which the cluster never answered. */
  readonly silences: number;
}

export type NextStep =
  | { readonly next: 'end'; readonly problem?: Problem }
  /** The same attempt again, on the repaired cluster. */
  | { readonly next: 'follow' }
  | { readonly next: 'submit'; readonly delaySeconds: number };

/** Ray's error types for which the script is not to blame. */
const INFRASTRUCTURE: ReadonlySet<string> = new Set([
  'JOB_SUPERVISOR_ACTOR_DIED',
  'JOB_SUPERVISOR_ACTOR_START_TIMEOUT',
  'JOB_SUPERVISOR_ACTOR_START_FAILURE',
  'JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE',
  'JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE',
  'JOB_ENTRYPOINT_COMMAND_START_ERROR',
]);

/**
 * Exit codes of a process that something else ended by SIGKILL or SIGTERM, as Python and as a shell reports it: a
 * node that is going down, or the kernel that is out of memory.
 */
const KILLED: ReadonlySet<number> = new Set([-9, -15, 137, 143]);

/** How pip, uv, git and downloads say that the network, not the request, is the trouble. */
const NETWORK =
  /connection (?:refused|reset|aborted|error|broken)|connecterror|newconnectionerror|max retries exceeded|timed? ?out|name resolution|name or service not known|network is unreachable|no route to host|could not resolve host|remote end closed|(?:http error|status(?: code)?)[: ]+(?:429|5\d\d)|service unavailable|no space left on device/iu;

/** Whether a runtime environment could not be set up for reasons that pass. */
export const isNetworkTrouble = (reason: string): boolean => NETWORK.test(reason);

/** Tells a script that fails from a cluster that does. Pure. */
export function judge(
  spec: Pick<JobSpec, 'jobId' | 'store'>,
  attempt: number,
  end: AttemptOutcome,
): Verdict {
  const who = `attempt ${attempt} of job ${spec.jobId}`;
  const lost = (message: string): Verdict => ({
    kind: 'infrastructure',
    problem: { type: 'JobLost', message },
  });
  const failed = (message: string): Verdict => ({
    kind: 'user',
    problem: {
      type: 'JobFailed',
      message,
      wayOut: `Read the log: rankflow job logs ${spec.jobId}`,
    },
  });
  const because = end.reason === undefined ? '' : `: ${end.reason}`;
  switch (end.status) {
    case 'succeeded':
      return {
        kind: 'succeeded',
        ...(end.result && { result: { ...end.result, path: resultFile(spec, attempt) } }),
      };
    case 'stopped':
      return { kind: 'stopped' };
    case 'running':
    case 'unreachable':
      return {
        kind: 'unreachable',
        problem: { type: 'ClusterUnavailable', message: `the cluster of ${who} is away${because}` },
      };
    case 'unknown':
      return lost(`${who} was lost with the head of its cluster`);
    case 'failed':
      break;
  }
  const { errorType = '', exitCode, lostNodes = [] } = end;
  if (INFRASTRUCTURE.has(errorType)) return lost(`${who} was lost (${errorType})${because}`);
  if (errorType === 'RUNTIME_ENV_SETUP_FAILURE') {
    const message = `the runtime environment of ${who} could not be set up${because}`;
    return end.networkTrouble ? lost(message) : failed(message);
  }
  if (exitCode !== undefined && KILLED.has(exitCode)) {
    return lost(`${who} was killed (exit code ${exitCode})`);
  }
  if (lostNodes.length > 0) {
    return lost(`${who} failed when nodes were lost: ${lostNodes.join(', ')}`);
  }
  return failed(`${who} failed${exitCode === undefined ? because : ` with exit code ${exitCode}`}`);
}

/** Waits in which the cluster never answers before a job gives up; each lasts a minute or more. */
export const MOST_SILENCES = 30;

/** Adds a verdict to the counts. */
export function count(counts: JobCounts, { kind }: Verdict, answered: boolean): JobCounts {
  return {
    failures: counts.failures + (kind === 'user' ? 1 : 0),
    losses: counts.losses + (kind === 'infrastructure' ? 1 : 0),
    silences: kind === 'unreachable' && !answered ? counts.silences + 1 : 0,
  };
}

/** What to do after an attempt. Pure; `counts` include its verdict. */
export function planNext(
  spec: Pick<JobSpec, 'retries' | 'restarts'>,
  verdict: Verdict,
  counts: JobCounts,
): NextStep {
  if (verdict.kind === 'succeeded' || verdict.kind === 'stopped') return { next: 'end' };
  const giveUp: NextStep = { next: 'end', problem: verdict.problem };
  if (verdict.kind === 'unreachable') {
    return counts.silences > MOST_SILENCES ? giveUp : { next: 'follow' };
  }
  const own = verdict.kind === 'user';
  const [done, most] = own ? [counts.failures, spec.retries] : [counts.losses, spec.restarts];
  return done > most ? giveUp : { next: 'submit', delaySeconds: backoffSeconds(done) };
}

const FIRST_BACKOFF_S = 2;
const LONGEST_BACKOFF_S = 300;

/** Seconds before the next attempt: soon after the first loss, minutes when losses go on. */
export const backoffSeconds = (losses: number): number =>
  Math.min(FIRST_BACKOFF_S * 2 ** Math.max(0, losses - 1), LONGEST_BACKOFF_S);

/** Variables that tell a script which attempt it is and where to go on from. */
export const RESERVED_VARIABLES = [
  'RANKFLOW_JOB_ID',
  'RANKFLOW_ATTEMPT',
  'RANKFLOW_CHECKPOINT_DIR',
  'RANKFLOW_RESULT_FILE',
] as const;

/** Folders of a job in its store; `/` is right on every platform that Ray's nodes run on. */
export const jobFolder = ({ store, jobId }: Pick<JobSpec, 'store' | 'jobId'>): string =>
  `${store.replace(/\/+$/u, '')}/jobs/${jobId}`;

/** Where a script of the job keeps what it goes on from, the same for all attempts. */
export const checkpointFolder = (spec: Pick<JobSpec, 'store' | 'jobId'>): string =>
  `${jobFolder(spec)}/checkpoints`;

/** One for each attempt, so that a zombie cannot overwrite the result of its successor. */
export const resultFile = (spec: Pick<JobSpec, 'store' | 'jobId'>, attempt: number): string =>
  `${jobFolder(spec)}/results/${submissionIdOf(spec.jobId, attempt)}.json`;

/** Its presence says that an attempt was given up and must not start any more. */
export const fenceFile = (spec: Pick<JobSpec, 'store' | 'jobId'>, attempt: number): string =>
  `${jobFolder(spec)}/ended/${submissionIdOf(spec.jobId, attempt)}`;

/** Name of a package in Ray: by content, so that equal directories are sent once. */
export const packageName = (sha256: string): string => `_ray_pkg_${sha256.slice(0, 32)}.zip`;

/** Body of the request that submits an attempt to Ray's job API. */
export interface Submission {
  readonly submission_id: string;
  readonly entrypoint: string;
  readonly runtime_env: Readonly<Record<string, unknown>>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly entrypoint_num_cpus?: number;
  readonly entrypoint_num_gpus?: number;
  readonly entrypoint_memory?: number;
  readonly entrypoint_resources?: Readonly<Record<string, number>>;
  readonly entrypoint_label_selector?: Readonly<Record<string, string>>;
}

/**
 * Ids of the nodes that Ray has to be kept from when it places an entrypoint. One that asks for nothing runs on the
 * head, and any selector would send it to other nodes: it gets one only when that is cordoned. Pure.
 *
 * @param unschedulable ids of the cordoned nodes
 * @returns undefined when all nodes are cordoned
 */
export function nodesToAvoid(
  { numCpus = 0, numGpus = 0, memoryBytes = 0, custom = {} }: JobSpec['resources'],
  nodes: readonly RayNode[],
  unschedulable: readonly string[],
): readonly string[] | undefined {
  const alive = nodes.filter((node) => node.alive);
  const closed = new Set(unschedulable);
  if (closed.size === 0) return [];
  if (alive.every(({ nodeId }) => closed.has(nodeId))) return undefined;
  const asks = numCpus + numGpus + memoryBytes > 0 || Object.keys(custom).length > 0;
  const headOpen = alive.some(({ head, nodeId }) => head && !closed.has(nodeId));
  return !asks && headOpen ? [] : unschedulable;
}

/**
 * What Ray is told to run for an attempt. Pure.
 *
 * @param avoid ids of nodes that it is not to run on
 */
export function submissionOf(
  spec: JobSpec,
  attempt: number,
  avoid: readonly string[] = [],
): Submission {
  const { jobId, resources, runtimeEnv } = spec;
  const { numCpus, numGpus, memoryBytes, custom } = resources;
  return {
    submission_id: submissionIdOf(jobId, attempt),
    entrypoint: entrypointOf(spec, attempt),
    runtime_env: {
      ...runtimeEnv,
      ...(spec.package && { working_dir: `gcs://${packageName(spec.package.sha256)}` }),
      env_vars: {
        ...(runtimeEnv['env_vars'] as Record<string, string> | undefined),
        ...spec.env,
        RANKFLOW_JOB_ID: jobId,
        RANKFLOW_ATTEMPT: String(attempt),
        RANKFLOW_CHECKPOINT_DIR: checkpointFolder(spec),
        RANKFLOW_RESULT_FILE: resultFile(spec, attempt),
        // Ray's supervisor of the job reads it when it is told to stop.
        RAY_JOB_STOP_WAIT_TIME_S: String(spec.stopGraceSeconds),
      },
    },
    metadata: { job_name: jobId, rankflow_job: jobId, rankflow_attempt: String(attempt) },
    ...(numCpus !== undefined && { entrypoint_num_cpus: numCpus }),
    ...(numGpus !== undefined && { entrypoint_num_gpus: numGpus }),
    ...(memoryBytes !== undefined && { entrypoint_memory: memoryBytes }),
    ...(custom !== undefined && { entrypoint_resources: custom }),
    ...(avoid.length > 0 && {
      entrypoint_label_selector: { [NODE_ID_LABEL]: `!in(${avoid.join(',')})` },
    }),
  };
}

/**
 * The entrypoint behind its fence, and with its secrets fetched on the node: Ray shows entrypoints and environments
 * to everybody, and cannot take back a job that still waits for resources.
 */
function entrypointOf(spec: JobSpec, attempt: number): string {
  const { entrypoint, secrets } = spec;
  const fence = `[ ! -e ${quoted(fenceFile(spec, attempt))} ] || exit 0; `;
  if (secrets.length === 0) return fence + entrypoint;
  const fetched = secrets.map(({ name, file }) =>
    file === undefined
      ? `: "\${${name}:?is not set on this node}"`
      : `${name}="$(cat ${quoted(file)})" && export ${name}`,
  );
  return `${fence}${fetched.join(' && ')} && { ${entrypoint}\n}`;
}

/** One word of a POSIX shell. */
const quoted = (text: string): string => `'${text.replaceAll("'", String.raw`'\''`)}'`;
