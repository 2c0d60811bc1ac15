import { writeFileSync } from 'node:fs';
import path from 'node:path';

import { markdown } from '../../chaos/report/markdown.js';
import type { Report } from '../../chaos/report/record.js';

/** Prints the report of a campaign, and keeps it in the folder `CAMPAIGN_REPORTS` when that is set. */
export function publish(name: string, report: Report): void {
  console.log(markdown(report));
  const folder = process.env['CAMPAIGN_REPORTS'];
  if (folder === undefined) return;
  writeFileSync(path.join(folder, `${name}.json`), `${JSON.stringify(report, undefined, 2)}\n`);
}
