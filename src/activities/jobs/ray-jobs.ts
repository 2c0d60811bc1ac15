import { ApplicationFailure } from '@temporalio/common';
import { z } from 'zod';

import type { ClusterAddress } from '../../contracts/cluster.js';
import { packageName, type Submission } from '../../workflows/job-plan.js';
import { authorization, reasonOf } from '../ray-state.js';
import { request, type Answer, type RequestOptions } from './request.js';

/** The dashboard answers in well under a second, on a busy head in a few; its agent may still be coming up. */
const ANSWER_MS = 30_000;
/** A package of 500 MB on a slow line. */
const UPLOAD_MS = 540_000;

const JobInfo = z.object({
  status: z.enum(['PENDING', 'RUNNING', 'STOPPED', 'SUCCEEDED', 'FAILED']),
  message: z.string().nullish(),
  error_type: z.string().nullish(),
  /** Milliseconds since the epoch. */
  start_time: z.number().nullish(),
  metadata: z.record(z.string(), z.string()).nullish(),
  driver_node_id: z.string().nullish(),
  driver_exit_code: z.number().nullish(),
});
/** A job as Ray's job API shows it. */
export type JobInfo = z.infer<typeof JobInfo>;

/** `ClusterUnavailable`, which the workflow answers by having the cluster repaired. */
const unavailable = (message: string): ApplicationFailure =>
  ApplicationFailure.retryable(message, 'ClusterUnavailable');

async function call(
  { dashboardUrl, tokenFile }: ClusterAddress,
  path: string,
  { headers, signal = AbortSignal.timeout(ANSWER_MS), ...rest }: Partial<RequestOptions> = {},
): Promise<Answer> {
  try {
    return await request(new URL(path, dashboardUrl), {
      ...rest,
      signal,
      headers: { ...(await authorization(tokenFile)), ...headers },
    });
  } catch (error) {
    throw unavailable(`the dashboard ${dashboardUrl} does not answer: ${reasonOf(error)}`);
  }
}

/** The last line of a Python traceback says what was wrong. */
async function lastLine(response: Answer): Promise<string> {
  const lines = (await response.text().catch(() => '')).trim().split('\n');
  return (lines.at(-1) ?? '').slice(0, 500);
}

const isOk = ({ status }: Answer): boolean => status >= 200 && status < 300;

const failed = async (what: string, response: Answer): Promise<ApplicationFailure> =>
  unavailable(`Ray cannot ${what} (status ${response.status}): ${await lastLine(response)}`);

/**
 * What Ray knows of a job; undefined when it does not know it.
 *
 * @throws ApplicationFailure `ClusterUnavailable` when the dashboard does not answer
 */
export async function jobInfo(
  cluster: ClusterAddress,
  submissionId: string,
): Promise<JobInfo | undefined> {
  const response = await call(cluster, `/api/jobs/${submissionId}`);
  if (response.status === 404) return undefined;
  if (!isOk(response)) throw await failed('show the job', response);
  return JobInfo.parse(JSON.parse(await response.text()));
}

/**
 * Submits a job.
 *
 * @returns false when there is one of this id already
 * @throws ApplicationFailure `JobRefused` for good, or `ClusterUnavailable`
 */
export async function submit(cluster: ClusterAddress, submission: Submission): Promise<boolean> {
  const response = await call(cluster, '/api/jobs/', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(submission),
  });
  if (isOk(response)) return true;
  const said = await lastLine(response);
  if (said.includes('already exists')) return false;
  // The dashboard passes on an agent's refusal of the request as an error of its own.
  if (response.status === 400 || /status code 400|ValueError|TypeError/u.test(said)) {
    throw ApplicationFailure.nonRetryable(`Ray refuses the job: ${said}`, 'JobRefused');
  }
  throw unavailable(`Ray cannot take the job (status ${response.status}): ${said}`);
}

/**
 * Asks a job to end: SIGTERM, and SIGKILL after its grace period.
 *
 * @returns false when nothing of it is left that could be asked
 */
export async function askToStop(cluster: ClusterAddress, submissionId: string): Promise<boolean> {
  const response = await call(cluster, `/api/jobs/${submissionId}/stop`, { method: 'POST' });
  if (response.status === 404) return false;
  if (!isOk(response)) throw await failed('stop the job', response);
  return z.object({ stopped: z.boolean() }).parse(JSON.parse(await response.text())).stopped;
}

/** Whether the cluster has a package. It keeps it for some minutes longer because it was asked. */
export async function hasPackage(cluster: ClusterAddress, sha256: string): Promise<boolean> {
  const response = await call(cluster, `/api/packages/gcs/${packageName(sha256)}`);
  if (response.status === 404) return false;
  if (!isOk(response)) throw await failed('look for a package', response);
  return true;
}

/** Sends a package. */
export async function putPackage(
  cluster: ClusterAddress,
  sha256: string,
  zip: Uint8Array,
): Promise<void> {
  const response = await call(cluster, `/api/packages/gcs/${packageName(sha256)}`, {
    method: 'PUT',
    body: zip,
    signal: AbortSignal.timeout(UPLOAD_MS),
  });
  if (!isOk(response)) throw await failed('take the package', response);
}

/**
 * The log of a job from its first byte. Ray's streams begin there whatever is asked for.
 *
 * @param nodeId where the entrypoint runs or ran
 * @param follow whether it goes on when the end of the file is reached
 */
export async function openLog(
  cluster: ClusterAddress,
  submissionId: string,
  nodeId: string,
  follow: boolean,
  signal: AbortSignal,
): Promise<AsyncIterable<Buffer>> {
  const query = new URLSearchParams({
    node_id: nodeId,
    filename: `job-driver-${submissionId}.log`,
    lines: '-1',
    // Ray refuses it for a log that is not followed.
    ...(follow && { interval: '1' }),
  });
  const path = `/api/v0/logs/${follow ? 'stream' : 'file'}?${String(query)}`;
  const response = await call(cluster, path, { signal });
  if (!isOk(response)) throw await failed('show the log', response);
  return response.body;
}
