import type { Report } from './record.js';

/** One report of several campaigns, for a long one that is done in parts. */
export function mergeReports(reports: readonly Report[]): Report {
  const [first] = reports;
  if (first === undefined) throw new Error('no report to merge');
  return {
    version: 1,
    seeds: reports.flatMap(({ seeds }) => seeds),
    startedAt: reports.map(({ startedAt }) => startedAt).toSorted()[0] ?? first.startedAt,
    seconds: reports.reduce((total, { seconds }) => total + seconds, 0),
    cores: Math.max(...reports.map(({ cores }) => cores)),
    faults: reports.flatMap(({ faults }) => faults),
    runs: reports.flatMap(({ runs }) => runs),
    skipped: reports.flatMap(({ skipped }) => skipped),
    histories: reports.reduce((total, { histories }) => total + histories, 0),
    violations: reports.flatMap(({ violations }) => violations),
  };
}
