import path from 'node:path';
import { pathToFileURL } from 'node:url';

import { execa } from 'execa';
import { expect, test } from 'vitest';

import { paths } from '../../../src/setup/paths.js';

// A process of its own, which takes its standard error for a terminal and watches a run that never ends.
const follow = path.join(paths.packageRoot, 'dist/cli/progress/follow.js');
const WATCHER = `
process.stderr.isTTY = true;
const { followRun, sayDetached } = await import(${JSON.stringify(pathToFileURL(follow).href)});
const handle = {
  describe: async () => ({ status: { name: 'RUNNING' }, startTime: new Date(), raw: {} }),
  query: async () => ({ runId: 'r', phase: 'preparing' }),
};
const client = { workflow: { getHandle: () => handle }, withDeadline: (_at, work) => work() };
setTimeout(() => process.kill(process.pid, 'SIGINT'), 500);
if ((await followRun(client, 'r', false)) === undefined) {
  sayDetached('r');
  process.exitCode = 130;
}
`;

test('Ctrl-C in a terminal detaches from the run and says how to come back', async () => {
  const { exitCode, signal, stderr } = await execa(
    process.execPath,
    ['--input-type=module', '--eval', WATCHER],
    { reject: false },
  );
  expect([exitCode, signal]).toEqual([130, undefined]);
  expect(stderr).toContain('bringing up the cluster');
  expect(stderr).toContain('rankflow watch r');
}, 20_000);
