import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { Client, Connection } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';

import { markedProcesses } from '../../src/activities/local/marked-processes.js';
import { installPlan } from '../../src/activities/ssh/environment.js';
import type { ClusterStatus } from '../../src/contracts/workflows.js';
import type { HostError } from '../../src/hosts/host.js';
import { sshHost, type SshTarget } from '../../src/hosts/ssh.js';
import { paths } from '../../src/setup/paths.js';
import { findTemporal } from '../../src/setup/temporal.js';
import { DataFolder, readLines, type ResultLine } from '../e2e/rankflow.js';
import { eventually } from '../support/harness.js';
import { SshHosts, whyNoHosts } from '../support/ssh-hosts.js';

const HOSTS = ['temporal', 'a', 'b', 'c', 'changed', 'bare', 'other'] as const;
const PORT = 7233;

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
  environment = `python: ${path.join(hosts.folder, 'python')}`,
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
    ...['environment:', `  ${environment}`],
    ...more,
  ];
  writeFileSync(file, `${text.join('\n')}\n`);
  return file;
}

/** Folder of an environment, in the home that all hosts share here. */
let made: string | undefined;

/** An environment as uv makes it from requirements on each node, with the Python of the nodes, that was made before. */
function madeEnvironment(): string {
  const requirements = `# of ${hosts.folder}\nray\n`;
  const file = path.join(hosts.folder, 'requirements.txt');
  writeFileSync(file, requirements);
  const python = path.join(homedir(), installPlan({ requirements }).python.slice(2));
  made = path.dirname(path.dirname(python));
  mkdirSync(path.dirname(python), { recursive: true });
  symlinkSync(path.join(hosts.folder, 'python'), python);
  writeFileSync(path.join(made, 'ready'), '');
  return `requirements: ${file}`;
}

const worker = (name: string): string =>
  `{name: ${name}, host: ${hosts.addressOf(name)}, resources: {num_cpus: 1, num_gpus: 0}, labels: {zone: ${name}}}`;

const statusOf = async (name: string): Promise<ClusterStatus> => {
  const { stdout, stderr } = await folder.rankflow(['cluster', 'status', name, '--json']);
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as ClusterStatus;
};

/** An address of the network that no host has. */
const nobody = (): string => hosts.addressOf('a').replace(/\d+$/u, '99');

const eventsOf = ({ events = [] }: ClusterStatus, node: string): string[] =>
  events.filter((event) => event.node === node).map(({ what }) => what);

const hashOf = (cluster: string): string =>
  createHash('sha256').update(`${folder.home}\0${cluster}`).digest('hex').slice(0, 8);

const CLUSTERS = ['lab', 'broken', 'durable'] as const;

/** Pids of what runs for the nodes of a cluster, or for one of them. */
function nodeProcesses(place = ''): number[] {
  return CLUSTERS.flatMap((cluster) => markedProcesses(`${hashOf(cluster)}${place}`));
}

/** What the environment of all processes of a node says. */
const placeOf = (node: string): string =>
  `/${node === 'head' ? 'h' : createHash('sha256').update(node).digest('hex').slice(0, 8)}`;

/** Folders of nodes on their hosts, which share one file system here. */
const nodeFolders = (): string[] =>
  CLUSTERS.flatMap((cluster) => {
    const root = `/tmp/rf-${hashOf(cluster)}`;
    return existsSync(root) ? readdirSync(root).map((one) => path.join(root, one)) : [];
  });

/** Switches a machine off: SIGKILL for every process of the node, whatever group it is in. */
function killNode(name: string): void {
  const pids = nodeProcesses(placeOf(name));
  expect(pids.length).toBeGreaterThan(0);
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended with one that was killed before it.
    }
  }
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}

/** The texts of all payloads in a history. */
function payloadsOf(value: unknown): string {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('latin1');
  if (typeof value !== 'object' || value === null) return '';
  return Object.values(value).map(payloadsOf).join('\n');
}

describe.skipIf(reason !== undefined)('a cluster over ssh', { timeout: 420_000 }, () => {
  beforeAll(async () => {
    hosts = new SshHosts(HOSTS);
    hosts.trust(HOSTS, ['changed']);
    for (const name of ['apart', 'disk-of-b']) mkdirSync(path.join(hosts.folder, name));
    hosts.mount('b', {
      [path.join(hosts.folder, 'apart')]: path.join(hosts.folder, 'disk-of-b'),
    });
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
    for (const name of ['lab', 'durable'])
      await folder?.rankflow(['cluster', 'down', name], 120_000);
    if (made !== undefined) rmSync(made, { recursive: true, force: true });
    await folder?.remove('none');
    server?.kill('SIGKILL');
    hosts?.remove();
  }, 120_000);

  it('tells each way in which ssh can refuse, with the way out', async () => {
    const target = (name: string, more: Partial<SshTarget> = {}): SshTarget => ({
      ...{ name, host: hosts.addressOf(name), user: 'root', configFile: '/dev/null' },
      ...{ identityFile: hosts.identityFile, knownHostsFile: hosts.knownHosts, ...more },
    });
    const refusal = async (more: Partial<SshTarget>): Promise<unknown> =>
      sshHost(target('b', more))
        .run(['true'])
        .then(() => 'no refusal')
        .catch((error: HostError) => error.type);
    expect(await refusal({ identityFile: path.join(hosts.folder, 'a.key') })).toBe(
      'HostAccessDenied',
    );
    expect(await refusal({ knownHostsFile: '/dev/null' })).toBe('HostKeyRefused');
    expect(await refusal({ host: hosts.addressOf('changed') })).toBe('HostKeyRefused');
    expect(await refusal({ host: nobody() })).toBe('HostUnreachable');
    const slow = sshHost(target('b')).run(['sleep', '60'], { timeoutMs: 1000 });
    await expect(slow).rejects.toMatchObject({ type: 'HostTimedOut' });

    const jumped = sshHost(target('b', { jump: [`root@${hosts.addressOf('a')}`] }));
    const { stdout } = await jumped.run(['sh', '-c', 'echo "$SSH_CONNECTION"']);
    expect(stdout.split(' ')[0]).toBe(hosts.addressOf('a'));
    const secret = path.join(hosts.folder, 'a secret');
    await jumped.put(secret, 'text', 0o600);
    expect(readFileSync(secret, 'utf8')).toBe('text');
    expect(statSync(secret).mode & 0o777).toBe(0o600);
  });

  it('is refused before anything is started, with what is wrong with every host', async () => {
    const gone = `{name: gone, host: ${nobody()}}`;
    const file = clusterFile('broken', [
      gone,
      worker('changed'),
      worker('bare'),
      worker('other'),
      worker('b'),
    ]);
    const { exitCode, stderr } = await folder.rankflow(['cluster', 'up', file]);
    expect(exitCode).toBe(3);
    expect(stderr).toMatch(/gone: .* does not answer on port 22/u);
    expect(stderr).toMatch(/changed: .* shows another host key than the known one/u);
    expect(stderr).toMatch(/bare: .* has no Ray: install it there/u);
    expect(stderr).toMatch(
      /other: .* is Python 3\.9\.\d+, and Ray needs the 3\.11\.\d+ of the other nodes/u,
    );
    expect(stderr).not.toMatch(/ b: /u);
    expect(nodeProcesses()).toEqual([]);
    expect(nodeFolders()).toEqual([]);
  });

  it('comes up although its start was cut off and a host died in the middle: the same command goes on', async () => {
    const file = clusterFile('lab', [worker('b'), worker('c')], [], madeEnvironment());
    const dry = await folder.rankflow(['cluster', 'up', file, '--dry-run']);
    expect(dry.stdout).toMatch(/^c on .*:$/mu);
    expect(nodeProcesses()).toEqual([]);

    const first = folder.rankflow(['cluster', 'up', file]);
    await eventually(() => nodeProcesses().length > 0, 60);
    first.kill('SIGKILL');
    hosts.stop('c');
    const second = folder.rankflow(['cluster', 'up', file]);
    await eventually(
      async () =>
        eventsOf(await statusOf('lab'), 'c').some((what) => /does not answer/u.test(what)),
      90,
    );
    await hosts.start(['c']);
    const { exitCode, stderr } = await second;
    expect(stderr).toContain('Ray at');
    expect(exitCode).toBe(0);

    const { nodes, state } = await statusOf('lab');
    expect(state).toBe('ready');
    expect(nodes.map(({ name, ip, cpus }) => [name, ip, cpus])).toEqual([
      ['head', hosts.addressOf('a'), 0],
      ['b', hosts.addressOf('b'), 1],
      ['c', hosts.addressOf('c'), 1],
    ]);
    const table = async () => (await folder.rankflow(['cluster', 'status', file, '--ray'])).stdout;
    expect(await table()).toMatch(
      /^NODE +STATE +ADDRESS +RESOURCES +ENGINES +SINCE +LAST PROBLEM$/mu,
    );
    // What `ray status` prints is up to 5 s old: its monitor writes it down every so often.
    await eventually(async () => (await table()).match(/^ 1 node_/gmu)?.length === 3, 30, table);
  });

  it('keeps its token to itself: in files of its user, in no command line, variable, log or history', async () => {
    const token = readFileSync(folder.file('clusters/lab/token'), 'utf8').trim();
    expect(token).toHaveLength(64);
    const files = nodeFolders().map((one) => path.join(one, 'token'));
    expect(files).toHaveLength(3);
    for (const file of files) {
      expect(readFileSync(file, 'utf8').trim()).toBe(token);
      expect(statSync(file).mode & 0o777).toBe(0o600);
    }
    const shown = readdirSync('/proc')
      .filter((entry) => /^\d+$/u.test(entry))
      .filter((pid) =>
        ['cmdline', 'environ'].some((what) => readIfThere(`/proc/${pid}/${what}`).includes(token)),
      );
    expect(shown).toEqual([]);
    const logs = await folder.rankflow(['cluster', 'logs', 'lab', 'b', '--lines', '500']);
    expect(logs.stdout).toMatch(/^\S+ b \| joined the cluster$/mu);
    expect(logs.stdout).toMatch(/^b ray \| /mu);
    expect(logs.stdout).not.toContain(token);
    const connection = await Connection.connect({
      address: `${hosts.addressOf('temporal')}:${PORT}`,
    });
    onTestFinished(async () => connection.close());
    const history = await new Client({ connection }).workflow
      .getHandle('cluster/lab')
      .fetchHistory();
    const texts = payloadsOf(history);
    expect(texts).toContain('known_hosts');
    expect(texts).not.toContain(token);
  });

  it('runs a job that calls its Python by name: that of the node, which has Ray', async () => {
    const script = 'import ray, sys; ray.init(); print("ran by", sys.executable, len(ray.nodes()))';
    const { exitCode, stderr } = await folder.rankflow([
      ...['job', 'submit', '--cluster', 'lab', '--', 'python', '-c', script],
    ]);
    expect(stderr).toContain(`ran by ${paths.python} 3`);
    expect(exitCode).toBe(0);
  });

  it('refuses a folder as store that one host has to itself, before any engine is loaded', async () => {
    const input = path.join(hosts.folder, 'one.jsonl');
    writeFileSync(input, '{"prompt": "hello"}\n');
    const store = path.join(hosts.folder, 'apart');
    const where = ['--backend', 'simulated', '--cluster', 'lab', '--fleet', 'apart'];
    const { exitCode, stderr } = await folder.rankflow([
      ...['run', input, '--model', 'simulated-model', '--store', store, ...where],
      ...['--engines', '2', '--cpus-per-engine', '1'],
    ]);
    expect(stderr).toMatch(/not all hosts share the store .*apart: /u);
    expect(stderr).toMatch(/ b: does not see what python-worker, c wrote/u);
    expect(stderr).not.toMatch(/head: /u);
    expect(stderr).toContain('Mount one shared folder there on every host');
    expect(exitCode).toBe(2);
    const fleets = await folder.rankflow(['fleet', 'list', '--json']);
    expect(fleets.stdout).not.toContain('apart');
    expect(readdirSync(store).filter((name) => name.startsWith('trip-'))).toEqual([]);
  });

  it('replaces a node that is killed while a run goes on across it', async () => {
    const input = path.join(hosts.folder, 'requests.jsonl');
    const rows = Array.from({ length: 240 }, (_, index) => ({
      ...{ custom_id: `row-${index}`, method: 'POST', url: '/v1/chat/completions' },
      body: { messages: [{ role: 'user', content: `question ${index}` }], max_tokens: 16 },
    }));
    writeFileSync(input, rows.map((row) => JSON.stringify(row)).join('\n'));
    const out = path.join(hosts.folder, 'answers.jsonl');
    // Over a minute of work: a settled cluster is looked at, and its engines are counted, every 30 s.
    const run = folder.rankflow([
      ...['run', input, '--model', 'simulated-model', '--backend', 'simulated', '--out', out],
      ...[
        '--cluster',
        'lab',
        '--fleet',
        'far',
        '--engines',
        '2',
        '--ranks',
        '2',
        '--batch-rows',
        '20',
      ],
      ...['--cpus-per-engine', '1', '--engine-arg', 'tokens_per_second=30'],
    ]);
    const engines = async () =>
      (await statusOf('lab')).nodes.find(({ name }) => name === 'b')?.engines;
    const state = async () => ({
      status: await statusOf('lab'),
      run: await Promise.race([run, sleep(0, 'goes on')]),
    });
    await eventually(async () => (await engines()) === 1, 180, state);
    const before = (await statusOf('lab')).nodes.find(({ name }) => name === 'b')?.nodeId;
    killNode('b');
    await eventually(async () => {
      const { state, nodes } = await statusOf('lab');
      const b = nodes.find(({ name }) => name === 'b');
      return state === 'ready' && b?.nodeId !== before;
    }, 120);
    expect(eventsOf(await statusOf('lab'), 'b').join('\n')).toMatch(
      /was alive, is (?:dead|starting|missing)/u,
    );

    const { exitCode, stderr } = await run;
    expect(stderr).toContain('240 rows: 240 succeeded');
    expect(exitCode).toBe(0);
    const ids = (readLines(out) as ResultLine[]).map((line) => line.custom_id);
    expect(ids).toEqual(rows.map((row) => row.custom_id));
  });

  it('drains a node: its engines leave, it ends, and it stays out until it is added', async () => {
    expect(
      (await folder.rankflow(['cluster', 'drain', 'lab', 'c', '--seconds', '5'])).exitCode,
    ).toBe(0);
    await eventually(async () => {
      const { nodes } = await statusOf('lab');
      return nodes.find(({ name }) => name === 'c')?.state === 'drained';
    }, 60);
    expect(nodeFolders()).toHaveLength(2);
    const wrong = await folder.rankflow(['cluster', 'remove', 'lab', 'nobody']);
    expect(wrong.exitCode).toBe(2);
    expect(wrong.stderr).toMatch(/there is no node nobody; there are b, c/u);
  });

  it('is rebuilt when its head is lost', async () => {
    const before = (await statusOf('lab')).nodes[0]?.nodeId;
    killNode('head');
    await eventually(async () => {
      const { state, nodes } = await statusOf('lab');
      return state === 'ready' && nodes[0]?.nodeId !== before;
    }, 150);
    const alive = (await statusOf('lab')).nodes.filter(({ state }) => state === 'alive');
    expect(alive.map(({ name }) => name)).toEqual(['head', 'b']);
  });

  it('goes down and leaves nothing: no process, no file, no token', async () => {
    const down = await folder.rankflow(['cluster', 'down', path.join(hosts.folder, 'lab.yaml')]);
    expect(down.stderr).toContain('The cluster is down.');
    expect(down.exitCode).toBe(0);
    expect(nodeProcesses()).toEqual([]);
    expect(nodeFolders()).toEqual([]);
    expect(existsSync(folder.file('clusters/lab/token'))).toBe(false);
  });

  it('keeps its nodes as they are when its head is lost, if its state is on disk', async () => {
    // In the home of a user, who is the same on each host here.
    const python = `~/${path.relative(homedir(), path.join(hosts.folder, 'python'))}`;
    const more = ['gcsStorage: rocksdb'];
    const file = clusterFile('durable', [worker('b')], more, `python: ${python}`);
    const up = await folder.rankflow(['cluster', 'up', file], 180_000);
    expect(up.stderr).toContain('Ray at');
    const [head, b] = (await statusOf('durable')).nodes;
    const processes = nodeProcesses(placeOf('b'));
    expect(processes.length).toBeGreaterThan(1);
    killNode('head');
    await eventually(async () => {
      const { state, nodes } = await statusOf('durable');
      return state === 'ready' && nodes[0]?.nodeId !== head?.nodeId;
    }, 150);
    const now = (await statusOf('durable')).nodes.find(({ name }) => name === 'b');
    expect(now).toMatchObject({ state: 'alive', nodeId: b?.nodeId });
    expect(nodeProcesses(placeOf('b'))).toEqual(expect.arrayContaining(processes));

    const down = await folder.rankflow(['cluster', 'down', file], 120_000);
    expect(down.exitCode).toBe(0);
    expect(nodeProcesses()).toEqual([]);
    expect(nodeFolders()).toEqual([]);
  });
});
