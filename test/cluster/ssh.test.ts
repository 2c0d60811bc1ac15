import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';

import type { ClusterStatus } from '../../src/contracts/workflows.js';
import { identityOf } from '../../src/setup/processes.js';
import { paths } from '../../src/setup/paths.js';
import { findTemporal } from '../../src/setup/temporal.js';
import { DataFolder, readLines, type ResultLine } from '../e2e/rankflow.js';
import { eventually } from '../support/harness.js';
import { SshHosts, whyNoHosts } from '../support/ssh-hosts.js';

const HOSTS = ['temporal', 'a', 'b', 'c', 'changed', 'bare', 'other'] as const;
const PORT = 7233;
/** Marks every process that these tests start on hosts. */
const MARKER = 'RANKFLOW_NODE';

const reason = whyNoHosts();
if (reason !== undefined) console.warn(`clusters over ssh are not tested: ${reason}`);

let hosts: SshHosts;
let folder: DataFolder;
let server: ChildProcess;

/** The Python of the nodes: that of this project, but on two hosts another one. */
function writePython(): string {
  const file = path.join(hosts.folder, 'python');
  const older = 'import sys; sys.version_info = (3, 9, 0); exec(sys.stdin.read())';
  const text = [
    '#!/bin/sh',
    'case "$(echo "$SSH_CONNECTION" | cut -d " " -f 3)" in',
    `${hosts.addressOf('bare')}) exec /usr/bin/env -i PATH=/usr/bin:/bin SSH_CONNECTION="$SSH_CONNECTION" python3 -S "$@" ;;`,
    `${hosts.addressOf('other')}) exec ${paths.python} -c '${older}' ;;`,
    `*) exec ${paths.python} "$@" ;;`,
    'esac',
  ];
  writeFileSync(file, `${text.join('\n')}\n`, { mode: 0o755 });
  return file;
}

function clusterFile(
  name: string,
  workers: readonly string[],
  more: readonly string[] = [],
): string {
  const file = path.join(hosts.folder, `${name}.yaml`);
  const text = [
    ...[`name: ${name}`, 'provider: ssh', `head: ${hosts.addressOf('a')}`],
    ...['workers:', ...workers.map((worker) => `  - ${worker}`)],
    ...[
      'ssh:',
      `  identityFile: ${hosts.identityFile}`,
      '  knownHosts: known_hosts',
      '  config: /dev/null',
      '  user: root',
    ],
    ...['environment:', '  python: ./python'.replace('.', hosts.folder)],
    ...more,
  ];
  writeFileSync(file, `${text.join('\n')}\n`);
  return file;
}

const worker = (name: string): string =>
  `{name: ${name}, host: ${hosts.addressOf(name)}, resources: {num_cpus: 1, num_gpus: 0}, labels: {zone: ${name}}}`;

const statusOf = async (name: string): Promise<ClusterStatus> => {
  const { stdout, stderr } = await folder.rankflow(['cluster', 'status', name, '--json']);
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as ClusterStatus;
};

/** Pids of what runs on the hosts of a data folder's clusters. */
function nodeProcesses(): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/u.test(entry))
    .map(Number)
    .filter((pid) => {
      try {
        const variables = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
        const ours = variables.some((one) => one.startsWith(`PYTHONPATH=/tmp/rf-`));
        return (
          ours &&
          variables.some((one) => one.startsWith(`${MARKER}=`)) &&
          identityOf(pid) !== undefined
        );
      } catch {
        return false;
      }
    });
}

describe.skipIf(reason !== undefined)('a cluster over ssh', { timeout: 240_000 }, () => {
  beforeAll(async () => {
    hosts = new SshHosts(HOSTS);
    await hosts.start(['a', 'b', 'c', 'changed', 'bare', 'other']);
    writePython();
    const temporal = await findTemporal();
    if (temporal === undefined) throw new Error('No Temporal CLI: run `npm run setup` first.');
    const [command, args] = hosts.network.command(
      hosts.network.host('temporal'),
      temporal.command,
      [
        // All addresses of that host: with one that is not the loopback its parts do not find each other.
        ...['server', 'start-dev', '--headless', '--ip', '0.0.0.0', '--port', String(PORT)],
        ...['--log-level', 'warn'],
      ],
    );
    server = spawn(command, args, { stdio: 'ignore' });
    folder = new DataFolder({ TEMPORAL_ADDRESS: `${hosts.addressOf('temporal')}:${PORT}` });
    mkdirSync(folder.file('logs'), { recursive: true });
    await eventually(async () => (await folder.rankflow(['up'])).exitCode === 0, 60);
  }, 120_000);
  afterAll(async () => {
    await folder?.rankflow(['cluster', 'down', 'lab'], 120_000);
    await folder?.remove('none');
    server?.kill('SIGKILL');
    hosts?.remove();
  }, 120_000);

  it('comes up from its file: three hosts, as `ray status` shows them', async () => {
    const file = clusterFile('lab', [worker('b'), worker('c')]);
    const up = await folder.rankflow(['cluster', 'up', file]);
    expect(up.stderr).toContain('Ray at');
    expect(up.exitCode).toBe(0);
    const { stdout } = await folder.rankflow(['cluster', 'status', 'lab', '--ray']);
    console.log(stdout);
    expect(stdout).toMatch(/lab: ready \(ssh\)/u);
  });

  it('goes down and leaves nothing on any host', async () => {
    const down = await folder.rankflow(['cluster', 'down', 'lab']);
    console.log(down.stderr);
    expect(down.exitCode).toBe(0);
    expect(nodeProcesses()).toEqual([]);
  });
});
