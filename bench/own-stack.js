/** A stack with a data folder of its own and the installed parts of the real one, for benchmarks on simulated engines. */
import { randomInt } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { execa } from 'execa';

import { paths as installed } from '../dist/setup/paths.js';

export const home = mkdtempSync(path.join(tmpdir(), 'rf-'));
for (const part of ['venv', 'models', 'bin', 'setup']) {
  const source = path.join(installed.home, part);
  if (existsSync(source)) symlinkSync(source, path.join(home, part));
}

// Not Temporal's usual ports, which another stack of this machine comes back to.
const port = randomInt(20_000, 29_998);
mkdirSync(path.join(home, 'stack'));
writeFileSync(path.join(home, 'stack', 'ports.json'), JSON.stringify({ port, uiPort: port + 1 }));

export const inHome = (...parts) => path.join(home, ...parts);

/** The command line, as a user calls it; never rejects. */
export const rankflow = (...args) =>
  execa(process.execPath, [path.join(installed.packageRoot, 'dist/cli/main.js'), ...args], {
    reject: false,
    env: {
      RANKFLOW_HOME: home,
      TEMPORAL_ADDRESS: undefined,
      TEMPORAL_NAMESPACE: undefined,
      TEMPORAL_CONFIG_FILE: inHome('none.toml'),
    },
  });

/** What `rankflow fleet|cluster status NAME` says. */
export const statusOf = async (what, name) =>
  JSON.parse((await rankflow(what, 'status', name, '--json')).stdout);

/** Looks twice a second; throws after `seconds`. */
export async function until(check, seconds) {
  for (const deadline = Date.now() + seconds * 1000; !(await check()); await sleep(500)) {
    if (Date.now() > deadline) throw new Error(`did not happen within ${seconds} s: ${check}`);
  }
}

/** Does the work and takes everything down, also when it is interrupted. */
export async function withOwnStack(fleet, work) {
  const cleanUp = async () => {
    await rankflow('fleet', 'stop', fleet);
    await rankflow('cluster', 'down');
    await rankflow('down');
    rmSync(home, { recursive: true, force: true });
  };
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => {
      void cleanUp().then(() => process.exit(1));
    });
  }
  try {
    await work();
  } finally {
    await cleanUp();
  }
}
