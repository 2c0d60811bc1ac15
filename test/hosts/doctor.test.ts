import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { userInfo } from 'node:os';
import path from 'node:path';

import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';

import { checkNodes, removeNodes, startNode } from '../../src/activities/ssh-cluster.js';
import { MARKER } from '../../src/activities/local/node-command.js';
import { installPlan } from '../../src/activities/ssh/environment.js';
import { targetOf } from '../../src/activities/ssh/hosts.js';
import { nodeMarker } from '../../src/activities/ssh/node-settings.js';
import { clusterFolder } from '../../src/activities/local/node-state.js';
import { readClusterFile } from '../../src/clusters/cluster-file.js';
import type { HostReport } from '../../src/hosts/alike/facts.js';
import { sshHost } from '../../src/hosts/ssh.js';
import { paths } from '../../src/setup/paths.js';
import { SshHosts, whyNoHosts } from '../support/ssh-hosts.js';

const NAMES = ['head', 'a', 'b'] as const;
const CLUSTER = 'doctor-test';
const reason = whyNoHosts();
if (reason !== undefined) console.warn(`hosts over ssh are not looked at: ${reason}`);

let hosts: SshHosts;
let temporal: Server;
let file: string;
let address: string;

/** The folders that are lent to hosts, which all share this machine's. */
const lent = (): string[] => readdirSync('/tmp').filter((name) => name.startsWith('tmp.'));

async function doctor(...args: string[]) {
  return execa(process.execPath, ['dist/cli/main.js', 'doctor', ...args], {
    cwd: paths.packageRoot,
    reject: false,
    env: { TEMPORAL_ADDRESS: address, NO_COLOR: '1' },
  });
}

const told = ({ findings }: HostReport): string[] =>
  findings.map(({ what, severity, hosts: of }) => `${what} ${severity} ${of.join(' ')}`);

describe.skipIf(reason !== undefined)('rankflow doctor --cluster', { timeout: 120_000 }, () => {
  beforeAll(async () => {
    hosts = new SshHosts(NAMES);
    await hosts.start(NAMES);
    mkdirSync(path.join(hosts.folder, 'store'));
    const here = hosts.addressOf('head').replace(/\d+$/u, '1');
    temporal = createServer((socket) => socket.end());
    await new Promise<void>((resolve) => {
      temporal.listen(0, here, resolve);
    });
    address = `${here}:${(temporal.address() as { port: number }).port}`;
    file = path.join(hosts.folder, 'cluster.yaml');
    writeFileSync(
      file,
      [
        ...[`name: ${CLUSTER}`, 'provider: ssh', `head: ${hosts.addressOf('head')}`, 'workers:'],
        ...['a', 'b'].map((name) => `  - {name: ${name}, host: ${hosts.addressOf(name)}}`),
        ...['ssh:', `  identityFile: ${hosts.identityFile}`, '  user: root', '  config: /dev/null'],
        ...['ports: {nodeManager: 9001, objectManager: 9002, workers: 20000-20099}'],
        ...['environment:', `  python: ${paths.python}`],
      ].join('\n'),
    );
  }, 60_000);
  afterAll(() => {
    temporal?.close();
    hosts?.remove();
    rmSync(clusterFolder(CLUSTER), { recursive: true, force: true });
  });

  it('shows hosts that are fit: alike, at the ports of the file, with one store', async () => {
    const before = lent();
    const store = path.join(hosts.folder, 'store');
    const { stdout, exitCode } = await doctor('--cluster', file, '--store', store, '--json');
    const report = JSON.parse(stdout) as HostReport;
    expect(told(report).filter((line) => line.includes('refuses'))).toEqual([]);
    expect(exitCode).toBe(0);
    expect(report.hosts.map(({ name }) => name)).toEqual(['head', 'a', 'b', 'this machine']);
    expect(report.hosts.slice(0, 3).map((host) => host.address)).toEqual(
      NAMES.map(hosts.addressOf),
    );
    const tried = (from: string, to: string): number[] =>
      report.reach.filter((cell) => cell.from === from && cell.to === to).map(({ port }) => port);
    expect(tried('a', 'b')).toEqual([9001, 9002, 20_000, 20_049, 20_099]);
    expect(tried('this machine', 'head')).toEqual([6379, 8265, 10_001]);
    expect(report.reach.every(({ outcome }) => outcome === 'reached')).toBe(true);
    expect(Object.keys(report.store?.trips ?? {}).toSorted()).toEqual(['a', 'b', 'head']);
    // Nothing stays: no file in the store, none lent, no listener.
    expect(readdirSync(store)).toEqual([]);
    expect(lent()).toEqual(before);
    for (const { namespace } of hosts.network.hosts) {
      const pids = execFileSync('ip', ['netns', 'pids', namespace], { encoding: 'utf8' });
      expect(pids.trim().split('\n')).toHaveLength(1);
    }
  });

  it('refuses hosts of which two do not reach each other, and shows who', async () => {
    const a = hosts.network.host('a');
    hosts.network.cut(a, hosts.addressOf('b'));
    try {
      const store = path.join(hosts.folder, 'store');
      const { stdout, exitCode } = await doctor('--cluster', file, '--store', store);
      expect(exitCode).toBe(1);
      expect(stdout).toContain('a → b: no route');
      expect(stdout).not.toContain('a → head');
      expect(stdout).toMatch(/\d to mend before a cluster comes up/u);
    } finally {
      hosts.network.join(a, hosts.addressOf('b'));
    }
  });

  it('is what a bring-up is refused with: a worker is named, not the head', async () => {
    const spec = readClusterFile(file);
    expect(await checkNodes({ spec, nodes: NAMES })).toEqual([]);
    const b = hosts.network.host('b');
    hosts.network.cut(b, hosts.addressOf('head'));
    try {
      const problems = await checkNodes({ spec, nodes: NAMES });
      expect(problems.map(({ node }) => node)).toEqual(['b']);
      expect(problems[0]?.problem.message).toContain('b → head: no route');
    } finally {
      hosts.network.join(b, hosts.addressOf('head'));
    }
  });

  it('compares an environment that was installed before its node starts', async () => {
    const { name, nodes } = readClusterFile(file);
    if (nodes.provider !== 'ssh') throw new Error('not over ssh');
    const requirements = '# installed before';
    const { python } = installPlan({ requirements });
    const place = path.join(userInfo().homedir, python.slice(2));
    const environment = path.dirname(path.dirname(place));
    onTestFinished(() => rmSync(environment, { recursive: true, force: true }));
    // The hosts share one disk: only on b is there another torch.
    const other = path.join(hosts.folder, 'other');
    mkdirSync(path.join(other, 'torch-0.1.dist-info'), { recursive: true });
    writeFileSync(path.join(other, 'torch-0.1.dist-info/METADATA'), 'Name: torch\nVersion: 0.1\n');
    mkdirSync(path.dirname(place), { recursive: true });
    writeFileSync(
      place,
      [
        ...['#!/bin/sh', 'case "$SSH_CONNECTION" in'],
        `*" ${hosts.addressOf('b')} "*) export PYTHONPATH="${other}:$PYTHONPATH";;`,
        ...['esac', `exec ${paths.python} "$@"`],
      ].join('\n'),
      { mode: 0o755 },
    );
    writeFileSync(path.join(environment, 'ready'), '');

    const spec = { name, nodes: { ...nodes, environment: { requirements, python } } };
    const head = `${hosts.addressOf('head')}:6379`;
    const at = { name, address: head, dashboardUrl: `http://${hosts.addressOf('head')}:8265` };
    const failure = startNode({ spec, node: 'b', address: at }, async () => undefined);
    try {
      await expect(failure).rejects.toMatchObject({
        type: 'HostRefused',
        message: expect.stringMatching(/^b: torch: .*b: 0\.1/u),
      });
    } finally {
      await removeNodes({ spec, nodes: ['b'] });
    }
  });

  it('refuses a port that another program has, and not one that the node itself has', async () => {
    const { name, nodes } = readClusterFile(file);
    if (nodes.provider !== 'ssh') throw new Error('not over ssh');
    const a = hosts.network.host('a');
    const occupy = `import socket, time\nserver = socket.create_server(("${a.address}", 9001))\nprint(flush=True)\ntime.sleep(600)`;
    const [command, args] = hosts.network.command(a, paths.python, ['-c', occupy]);
    const portFindings = async (marker: string): Promise<[string[], number | undefined]> => {
      const program = spawn(command, args, { env: { ...process.env, [MARKER]: marker } });
      try {
        await once(program.stdout, 'data');
        const store = path.join(hosts.folder, 'store');
        const { stdout, exitCode } = await doctor('--cluster', file, '--store', store, '--json');
        const found = told(JSON.parse(stdout) as HostReport);
        return [found.filter((line) => line.startsWith('port')), exitCode];
      } finally {
        program.kill('SIGKILL');
      }
    };
    expect(await portFindings('of nobody')).toEqual([['port refuses a'], 1]);
    expect(await portFindings(nodeMarker(name, 'a'))).toEqual([[], 0]);
  });

  it('blames a host to go through when that is the one that is not to be trusted', async () => {
    const { nodes } = readClusterFile(file);
    if (nodes.provider !== 'ssh') throw new Error('not over ssh');
    const gate = hosts.addressOf('a');
    const ssh = { ...nodes.ssh, knownHosts: hosts.knownHosts, jump: [`root@${gate}`] };
    const b = sshHost(targetOf({ ...nodes, ssh }, { name: 'b', host: hosts.addressOf('b') }));
    expect(await b.run(['true'])).toMatchObject({ exitCode: 0 });
    hosts.trust(NAMES, ['a']);
    try {
      await expect(b.run(['true'])).rejects.toMatchObject({
        type: 'HostKeyRefused',
        message: expect.stringContaining(`b: ${gate} shows another host key`) as string,
      });
      hosts.trust(['head', 'b']);
      await expect(b.run(['true'])).rejects.toMatchObject({
        message: expect.stringContaining(`b: the host key of ${gate} is not known`) as string,
      });
    } finally {
      hosts.trust(NAMES);
    }
  });

  it('shows the other hosts when one does not answer', async () => {
    hosts.stop('b');
    const { stdout, exitCode } = await doctor('--cluster', file, '--json');
    const report = JSON.parse(stdout) as HostReport;
    expect(exitCode).toBe(1);
    expect(told(report)).toContain('host refuses b');
    expect(report.hosts.find(({ name }) => name === 'a')?.fingerprint?.cpus).toBeGreaterThan(0);
    // The default store is a folder of this machine: the hosts, which share its disk here, find it missing or shared.
    expect(report.reach.some(({ from, to }) => from === 'a' && to === 'head')).toBe(true);
    await hosts.start(['b']);
  });
});

describe('rankflow doctor', { timeout: 60_000 }, () => {
  it('shows a cluster on this machine alone as one host', async () => {
    const { stdout, exitCode } = await doctor(
      '--cluster',
      'examples/clusters/local.yaml',
      '--json',
    );
    const report = JSON.parse(stdout) as HostReport;
    expect(report.hosts.map(({ name, role }) => `${name} ${role}`)).toEqual(['this machine head']);
    expect(report.hosts[0]?.fingerprint?.versions['ray']).toBeDefined();
    expect([0, 1]).toContain(exitCode);
  });

  it('asks no hosts that are not its own, and takes no file that is none', async () => {
    const existing = await doctor('--cluster', 'examples/clusters/existing.yaml');
    expect(existing.exitCode).toBe(2);
    expect(existing.stderr).toContain('way out');
    expect((await doctor('--cluster', 'no-such.yaml')).exitCode).toBe(2);
  });
});
