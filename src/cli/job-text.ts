import type { JobListing, JobView } from '../client/jobs.js';
import { paint } from '../setup/paint.js';
import { failureText, table } from './output.js';

const GOOD: ReadonlySet<string> = new Set(['succeeded']);
const BAD: ReadonlySet<string> = new Set(['failed', 'timed_out']);

export function stateText(state: string): string {
  if (GOOD.has(state)) return paint.green(state);
  return BAD.has(state) ? paint.red(state) : paint.yellow(state);
}

const time = (text: string | Date): string => new Date(text).toISOString().slice(0, 19);

/** A job and its attempts, for people. */
export function jobText(view: JobView): string {
  const { jobId, state, attempts, metrics, checkpoint, path, failure, logEnd, problem } = view;
  const head = ['attempt', 'state', 'node', 'submitted', 'ended', 'problem'];
  const rows = attempts.map((one) => [
    String(one.attempt),
    one.state,
    one.node ?? '',
    time(one.startedAt),
    one.endedAt === undefined ? '' : time(one.endedAt),
    one.problem?.message ?? '',
  ]);
  return [
    `${jobId}: ${stateText(state)}`,
    `  ${view.entrypoint}`,
    `  cluster ${view.cluster}, store ${view.store}`,
    ...(rows.length === 0 ? [] : [table([head, ...rows])]),
    ...Object.entries(metrics ?? {}).map(([name, value]) => `  ${name}  ${value}`),
    ...(checkpoint === undefined ? [] : [`checkpoint  ${checkpoint}`]),
    ...(path === undefined ? [] : [`result  ${path}`]),
    ...(failure === undefined ? [] : [failureText(failure)]),
    ...(logEnd === undefined ? [] : [`its log ends with: ${logEnd}`]),
    ...(failure === undefined && problem !== undefined ? [`last problem: ${problem}`] : []),
  ].join('\n');
}

export function jobTable(jobs: readonly JobListing[]): string {
  const head = ['job', 'state', 'started', 'cluster', 'entrypoint'];
  const rows = jobs.map((job) => [
    ...[job.jobId, job.state, time(job.startedAt)],
    ...[job.cluster ?? '', (job.entrypoint ?? '').replaceAll(/\s+/gu, ' ').slice(0, 60)],
  ]);
  return table([head, ...rows]);
}
