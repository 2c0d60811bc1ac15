import { writeFileSync } from 'node:fs';
import path from 'node:path';

import type { Invariant } from '../../chaos/checker/violation.js';
import { markdown } from '../../chaos/report/markdown.js';
import type { Report } from '../../chaos/report/record.js';

/** Prints the report of a campaign, and keeps it in the folder `CAMPAIGN_REPORTS` when that is set. */
export function publish(name: string, report: Report): void {
  console.log(markdown(report));
  const folder = process.env['CAMPAIGN_REPORTS'];
  if (folder === undefined) return;
  writeFileSync(path.join(folder, `${name}.json`), `${JSON.stringify(report, undefined, 2)}\n`);
}

/**
 * That invariants held in a campaign.
 *
 * @throws Error with all that did not; `scripts/test.js` knows by the first word of each line what it may try again
 */
export function holds({ violations }: Report, ...invariants: Invariant[]): void {
  const broken = violations.filter(({ invariant }) => invariants.includes(invariant));
  if (broken.length === 0) return;
  const lines = broken.map(({ invariant, code, message, run = '' }) => {
    return `${invariant} ${code} ${run}: ${message}`;
  });
  throw new Error(`what must hold did not:\n${lines.join('\n')}`);
}

/** What must hold however slow a machine is. */
export const WITHOUT_TIME = ['I1', 'I2', 'I3', 'I4', 'I5', 'I7'] as const;
