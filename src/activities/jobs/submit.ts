import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { Context } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';

import type { ClusterAddress } from '../../contracts/cluster.js';
import type { JobSpec, OpenedJob, SubmitJobInput } from '../../contracts/job.js';
import { queryWorkflow } from '../../client/entities.js';
import { clusterWorkflowId, submissionIdOf } from '../../contracts/names.js';
import type { ClusterStatus } from '../../contracts/workflows.js';
import { allowed } from '../../roots.js';
import {
  checkpointFolder,
  fenceFile,
  jobFolder,
  nodesToAvoid,
  resultFile,
  submissionOf,
} from '../../workflows/job-plan.js';
import { unschedulableIds } from '../observe.js';
import { listNodes, reasonOf } from '../ray-state.js';
import { whileHeartbeating } from './heartbeat.js';
import { logFolder } from './job-log.js';
import { askToStop, hasPackage, jobInfo, putPackage, submit } from './ray-jobs.js';

/** Time between two looks at a job that ends, in ms. */
const LOOK_MS = 500;
/** Ray needs so long (ms) beyond the grace period to see that a process is gone. */
const AFTER_GRACE_MS = 30_000;

/** Where the package of a working directory lies in a job's folder. @throws PathRefused */
export const packageFile = (spec: Pick<JobSpec, 'store' | 'jobId'>, sha256: string): string =>
  allowed(path.join(jobFolder(spec), 'packages', `${sha256}.zip`));

/** Makes a job's folders, and tells how many attempts it has had. */
export async function openJob({ spec }: { readonly spec: JobSpec }): Promise<OpenedJob> {
  await Promise.all(
    [
      checkpointFolder(spec),
      path.dirname(resultFile(spec, 1)),
      path.dirname(fenceFile(spec, 1)),
      path.join(jobFolder(spec), 'logs'),
    ].map(async (folder) => mkdir(allowed(folder), { recursive: true })),
  );
  const logs = await readdir(path.join(jobFolder(spec), 'logs'));
  const numbers = logs.map((name) => Number(name.slice(`${spec.jobId}-a`.length)));
  return { attempts: Math.max(0, ...numbers.filter((n) => Number.isInteger(n))) };
}

/**
 * Submits an attempt, or finds it submitted: the same id never starts twice.
 *
 * @throws ApplicationFailure `JobRefused` for good, `ClusterUnavailable`
 */
export async function submitJob({ spec, attempt, address }: SubmitJobInput): Promise<void> {
  await whileHeartbeating(async () => {
    const submissionId = submissionIdOf(spec.jobId, attempt);
    // Its presence is what counts attempts, so it comes first.
    await mkdir(logFolder(spec, submissionId), { recursive: true });
    const known = await jobInfo(address, submissionId);
    if (known === undefined) {
      await sendPackage(spec, address);
      const avoid = await cordonedFor(spec, address);
      if (await submit(address, submissionOf(spec, attempt, avoid))) return;
    }
    const found = known ?? (await jobInfo(address, submissionId));
    if (found?.metadata?.['rankflow_job'] !== spec.jobId) {
      const message = `the cluster has another job ${submissionId}, which is not Rankflow's`;
      throw ApplicationFailure.nonRetryable(message, 'JobRefused');
    }
  });
}

/**
 * Ids of the cordoned nodes that matter to a job. Asked just before it is submitted: Ray keeps to what it was told.
 *
 * @throws ApplicationFailure `JobRefused` when all are cordoned; `ClusterUnavailable` when nobody says
 */
async function cordonedFor(spec: JobSpec, address: ClusterAddress): Promise<readonly string[]> {
  const { name } = spec.cluster;
  const { client } = Context.current();
  const unanswered = (what: string) => (error: unknown) => {
    const message = `${what} does not say which nodes are cordoned: ${reasonOf(error)}`;
    throw ApplicationFailure.retryable(message, 'ClusterUnavailable');
  };
  const status = await queryWorkflow<ClusterStatus>(client, clusterWorkflowId(name)).catch(
    unanswered(`the workflow of cluster ${name}`),
  );
  const names = status?.unschedulable ?? [];
  if (names.length === 0) return [];
  const nodes = await listNodes(address).catch(unanswered(`the head of cluster ${name}`));
  const avoid = nodesToAvoid(
    spec.resources,
    nodes,
    unschedulableIds({ unschedulable: names }, nodes),
  );
  if (avoid !== undefined) return avoid;
  throw ApplicationFailure.create({
    type: 'JobRefused',
    message: `all nodes of cluster ${name} are cordoned, so that the job can start nowhere: ${names.join(', ')}`,
    nonRetryable: true,
    details: [
      { wayOut: `Take nodes back with \`rankflow cluster uncordon ${name} ${names.join(' ')}\`.` },
    ],
  });
}

async function sendPackage(spec: JobSpec, address: ClusterAddress): Promise<void> {
  const { package: content } = spec;
  if (content === undefined || (await hasPackage(address, content.sha256))) return;
  const file = packageFile(spec, content.sha256);
  const zip = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    const message = `the package of the working directory is not there any more: ${file}`;
    throw ApplicationFailure.nonRetryable(message, 'JobRefused');
  });
  await putPackage(address, content.sha256, zip);
}

/** Ends an attempt: it never starts any more, and what runs of it gets SIGTERM and then SIGKILL. */
export async function endJob({ spec, attempt, address }: SubmitJobInput): Promise<void> {
  await whileHeartbeating(async (context) => {
    const submissionId = submissionIdOf(spec.jobId, attempt);
    // Ray cannot take back a job that waits for resources.
    await mkdir(path.dirname(fenceFile(spec, attempt)), { recursive: true });
    await writeFile(fenceFile(spec, attempt), '');
    const deadline = Date.now() + spec.stopGraceSeconds * 1000 + AFTER_GRACE_MS;
    for (;;) {
      const job = await jobInfo(address, submissionId);
      if (job === undefined) return;
      if (!(await askToStop(address, submissionId)) || job.status === 'PENDING') return;
      if (Date.now() > deadline) {
        const message = `${submissionId} does not end: its supervisor does not answer`;
        throw ApplicationFailure.retryable(message, 'ClusterUnavailable');
      }
      await context.sleep(LOOK_MS);
    }
  });
}
