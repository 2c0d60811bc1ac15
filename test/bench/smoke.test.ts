import { existsSync, readFileSync } from 'node:fs';

import { execa } from 'execa';
import { afterAll, describe, expect, it } from 'vitest';

import { paths } from '../../src/setup/paths.js';
import { DataFolder } from '../e2e/rankflow.js';

interface Report {
  readonly problems: readonly string[];
  readonly summary: readonly {
    readonly workload: string;
    readonly contender: string;
    readonly rows: number;
    readonly of_bare: number | null;
  }[];
}

const folder = new DataFolder();

/** A cluster, a fleet and three runs of simulated engines: a minute, on a busy machine several. */
describe('npm run bench', { timeout: 600_000 }, () => {
  afterAll(async () => {
    await folder.remove('simulated');
  }, 300_000);

  it('measures contenders on the same work and writes table, figures and plot; speed fails nothing', async () => {
    const out = folder.file('report');
    const { exitCode, stdout, stderr } = await execa(
      process.execPath,
      ['scripts/bench.js', '--smoke', '--engines', '2', '--out', out],
      {
        cwd: paths.packageRoot,
        reject: false,
        env: {
          RANKFLOW_HOME: folder.home,
          TEMPORAL_ADDRESS: undefined,
          TEMPORAL_NAMESPACE: undefined,
          TEMPORAL_CONFIG_FILE: folder.file('none.toml'),
        },
      },
    );
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    const { problems, summary } = JSON.parse(readFileSync(`${out}/report.json`, 'utf8')) as Report;
    expect(problems).toEqual([]);
    expect(summary.map(({ workload, contender }) => `${workload} ${contender}`)).toEqual(
      ['equal', 'mixed', 'tiny'].flatMap((workload) => [
        `${workload} bare`,
        `${workload} rankflow`,
      ]),
    );
    for (const { rows, of_bare: ratio } of summary) {
      expect(rows).toBeGreaterThan(50);
      expect(ratio).toBeGreaterThan(0);
    }
    expect(stdout).toContain('| Rankflow, warm, 2 engines |');
    expect(existsSync(`${out}/report.svg`)).toBe(true);
  });
});
