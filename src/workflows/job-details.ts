import type { JobSpec, JobStatus } from '../contracts/job.js';
import { problemLines, table } from './details.js';

/** Markdown for the Temporal UI: one line for each attempt. */
export function jobDetails(status: JobStatus): string {
  const { jobId, state, result, problem } = status;
  const rows = status.attempts.map((one) => [
    one.attempt,
    one.state,
    one.node ?? '',
    one.startedAt,
    one.endedAt ?? '',
    one.problem?.message ?? '',
  ]);
  const metrics = Object.entries(result?.metrics ?? {}).map(([name, value]) => `${name} ${value}`);
  return [
    `**${state}**: job ${jobId} on cluster ${status.cluster}`,
    ...(rows.length === 0
      ? []
      : [table(['Attempt', 'State', 'Node', 'Submitted', 'Ended', 'Problem'], rows)]),
    ...(metrics.length === 0 ? [] : [`Metrics: ${metrics.join(', ')}`]),
    ...(result?.checkpoint === undefined ? [] : [`Checkpoint: ${result.checkpoint}`]),
    ...(result === undefined ? [] : [`Result: ${result.path}`]),
    ...problemLines(problem),
  ].join('\n\n');
}

/** A line is all that a list shows. */
const LONGEST_SUMMARY = 80;

export const jobSummary = ({ entrypoint }: Pick<JobSpec, 'entrypoint'>): string => {
  const line = entrypoint.replaceAll(/\s+/gu, ' ');
  return line.length <= LONGEST_SUMMARY ? line : `${line.slice(0, LONGEST_SUMMARY - 1)}…`;
};
