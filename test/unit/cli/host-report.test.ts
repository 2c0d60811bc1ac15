import { expect, it } from 'vitest';

import { hostReportText } from '../../../src/cli/host-report.js';
import { host } from '../hosts/alike/facts.js';

it('the report on hosts shows how much room and which limits each has', () => {
  const limits = { nofile: 1024, nproc: 4096, memlock: 8 * 2 ** 20 };
  const small = host('small', { limits, shm: null });
  const { fingerprint: _, ...silent } = host('silent');
  const text = hostReportText({
    ...{ hosts: [host('head'), small, silent], reach: [], findings: [], refused: false },
  });
  const cells = text.split('\n').map((line) => line.split('│').map((cell) => cell.trim()));
  const rows = cells.filter(([, , disk]) => disk?.endsWith('at /tmp'));
  const disk = '400.0 of 1000.0 GiB at /tmp';
  expect(rows.map((row) => row.slice(1, -1))).toEqual([
    ['head', disk, '64.0 of 128.0 GiB', '1048576', 'no limit', 'no limit'],
    ['small', disk, '-', '1024', '4096', '8 MiB'],
  ]);
});
