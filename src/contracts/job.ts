import { z } from 'zod';

import { ClusterSpec, type ClusterAddress } from './cluster.js';
import type { Problem } from './workflows.js';

/** Job ids are parts of file names, of Ray's submission ids and of shell words. */
export const JOB_ID = /^[a-z0-9][a-z0-9-]{0,47}$/u;

const environmentName = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/u, 'is no name of a variable');

/** The content of a working directory, as it lies in the job's folder. */
export const JobPackage = z.strictObject({
  /** Hex sha256 of names, modes and contents of its files: names the package in Ray, too. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/u),
  files: z.int().nonnegative(),
  /** Size of the zip file. */
  bytes: z.int().positive(),
});
export type JobPackage = z.infer<typeof JobPackage>;

/** Where a secret is on the nodes; never the secret. */
export const JobSecret = z.strictObject({
  /** Environment variable that the entrypoint gets it in. */
  name: environmentName,
  /** File on the nodes that holds it; absent when the nodes have the variable in their environment. */
  file: z.string().startsWith('/').optional(),
});
export type JobSecret = z.infer<typeof JobSecret>;

/** Logical resources that Ray holds for the entrypoint itself, not for its tasks and actors. */
export const JobResources = z.strictObject({
  numCpus: z.number().nonnegative().optional(),
  numGpus: z.number().nonnegative().optional(),
  memoryBytes: z.int().nonnegative().optional(),
  custom: z.record(z.string(), z.number().nonnegative()).optional(),
});
export type JobResources = z.infer<typeof JobResources>;

export const JobSpec = z.strictObject({
  jobId: z.string().regex(JOB_ID, 'wants small letters, digits and dashes, 48 at most'),
  /** Shell command, run in the working directory. */
  entrypoint: z.string().min(1),
  /** Root folder of the store; the job's own folder is `jobs/<id>` in it. */
  store: z.string().min(1),
  cluster: ClusterSpec,
  /** Leave the cluster that this brought up running. */
  keep: z.boolean().default(false),
  package: JobPackage.optional(),
  /** Ray's runtime environment without a local working directory, as Ray's job API takes it. */
  runtimeEnv: z.record(z.string(), z.unknown()).default({}),
  env: z.record(environmentName, z.string()).default({}),
  secrets: z.array(JobSecret).default([]),
  resources: JobResources.default({}),
  /** Seconds for the whole job, all attempts and waits included. */
  timeoutSeconds: z.number().positive().optional(),
  /** How often it is started again after it failed by itself. */
  retries: z.int().nonnegative().default(0),
  /** How often it is started again after something below it was lost. */
  restarts: z.int().nonnegative().default(20),
  /** Seconds from SIGTERM to SIGKILL when it is stopped. */
  stopGraceSeconds: z.int().nonnegative().default(10),
});
export type JobSpec = z.infer<typeof JobSpec>;

/** What a script may leave in the file that `RANKFLOW_RESULT_FILE` names; other fields are ignored. */
export const JobResultFile = z.object({
  metrics: z
    .record(z.string(), z.union([z.number(), z.string(), z.boolean(), z.null()]))
    .optional(),
  /** Path of the best checkpoint. */
  checkpoint: z.string().optional(),
});
export type JobResultFile = z.infer<typeof JobResultFile>;

/** What a script left, and the file that it was read from. */
export interface KeptResult extends JobResultFile {
  readonly path: string;
}

/** How an attempt ended, as Ray's job API says it. The log is in the store, never here. */
export interface AttemptOutcome {
  /**
   * `running` answers a wait for the start; `unknown`: the cluster does not know the job (any more);
   * `unreachable`: the dashboard has not answered for a while.
   */
  readonly status: 'succeeded' | 'failed' | 'stopped' | 'running' | 'unknown' | 'unreachable';
  /** Ray's `JobErrorType`, for a failed one. */
  readonly errorType?: string;
  readonly exitCode?: number;
  /** Ray's reason in a line, shortened; absent for a failed entrypoint, where it is the end of the log. */
  readonly reason?: string;
  /** Whether that reason is the network's, so that another try may help. */
  readonly networkTrouble?: boolean;
  /** Names of nodes that were lost while it ran. */
  readonly lostNodes?: readonly string[];
  /** Of a running one: name of the node that the entrypoint runs on. */
  readonly node?: string;
  /** Whether the dashboard answered at all meanwhile. */
  readonly answered?: boolean;
  readonly result?: JobResultFile;
}

export interface SubmitJobInput {
  readonly spec: JobSpec;
  readonly attempt: number;
  readonly address: ClusterAddress;
}

export interface FollowJobInput extends SubmitJobInput {
  /** `start`: until it no longer waits; `end`: until it has ended. */
  readonly until: 'start' | 'end';
}

/** Heartbeat of `followJob`. */
export interface JobHeartbeat {
  readonly status: string;
  /** Bytes of its log that were kept so far. */
  readonly logBytes: number;
}

export interface OpenedJob {
  /** Attempts that earlier workflows of this job made. */
  readonly attempts: number;
}

/** Activities of the TypeScript control worker that jobs need. All are safe to repeat. */
export interface JobActivities {
  openJob(input: { readonly spec: JobSpec }): Promise<OpenedJob>;
  submitJob(input: SubmitJobInput): Promise<void>;
  followJob(input: FollowJobInput): Promise<AttemptOutcome>;
  /** Ends an attempt, gracefully and then not; returns when its process is gone. */
  endJob(input: SubmitJobInput): Promise<void>;
}

// Workflow: id job/<jobId>

export interface JobWorkflowInput {
  readonly spec: JobSpec;
}

/**
 * `preparing`: the cluster comes up; `pending`: Ray has it and waits for resources or its environment; `waiting`:
 * a pause before the next attempt.
 */
export type JobState =
  | 'preparing'
  | 'pending'
  | 'running'
  | 'waiting'
  | 'stopping'
  | 'succeeded'
  | 'failed'
  | 'stopped'
  | 'timed_out';

export interface AttemptStatus {
  readonly attempt: number;
  readonly submissionId: string;
  readonly state:
    'submitting' | 'pending' | 'running' | 'succeeded' | 'failed' | 'stopped' | 'lost';
  /** Name of the node that the entrypoint runs on; its tasks and actors may be anywhere. */
  readonly node?: string;
  /** ISO 8601 times. */
  readonly startedAt: string;
  readonly endedAt?: string;
  readonly problem?: Problem;
}

/** Result of the query `status` of a job. */
export interface JobStatus {
  readonly jobId: string;
  readonly state: JobState;
  readonly entrypoint: string;
  readonly cluster: string;
  readonly attempts: readonly AttemptStatus[];
  readonly result?: KeptResult;
  readonly problem?: Problem;
}

/** Result of `jobWorkflow`, and among the details of the failure with which a failed one ends. */
export interface JobResult {
  readonly jobId: string;
  readonly state: 'succeeded' | 'failed' | 'stopped' | 'timed_out';
  /** Attempts of this workflow and of those before it. */
  readonly attempts: number;
  readonly metrics?: JobResultFile['metrics'];
  /** Path of the best checkpoint, as the script reported it. */
  readonly checkpoint?: string;
  /** File with what the script left as its result; absent when it left nothing that can be used. */
  readonly path?: string;
  readonly error?: Problem;
}
