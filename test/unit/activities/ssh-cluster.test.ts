import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { ClusterSpec, SshProvider } from '../../../src/contracts/cluster.js';
import { FakeHosts } from '../../support/fake-ssh.js';
import { sshProvider } from '../../support/ssh-spec.js';

const home = mkdtempSync(path.join(tmpdir(), 'rankflow-ssh-'));
const { paths } = await import('../../../src/setup/paths.js');
Object.assign(paths, { home, clusters: path.join(home, 'clusters') });

const { checkNodes, endNode, removeNodes, startNode } =
  await import('../../../src/activities/ssh-cluster.js');
const { observeNodes } = await import('../../../src/activities/ssh/observe-nodes.js');
const { hostOf } = await import('../../../src/activities/ssh/hosts.js');
const { nodeFolder } = await import('../../../src/activities/ssh/node-settings.js');

const LOCKED = 'ray==2.60.0 --hash=sha256:00\n';

let hosts: FakeHosts;
beforeEach(() => {
  hosts = new FakeHosts();
});
afterEach(() => hosts.remove());
afterAll(() => rmSync(home, { recursive: true }));

/** A cluster whose hosts are called as its nodes, with all that nodes write below the fake hosts. */
function specOf(workers: readonly string[], more: Partial<SshProvider> = {}): ClusterSpec {
  const nodes = sshProvider(workers);
  const head = { ...nodes.head, host: 'head' };
  return { name: 'lab', nodes: { ...nodes, head, directory: hosts.folder, ...more } };
}

const problemsOf = async (spec: ClusterSpec, nodes: readonly string[]): Promise<string> => {
  const problems = await checkNodes({ spec, nodes: [...nodes] });
  return problems.map(({ problem }) => problem.message).join('\n');
};

async function listening(): Promise<Server> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return server;
}

describe('the look at hosts on which an environment is to be made', () => {
  it('tells all that is wrong with each of them, before anything is made', async () => {
    const server = await listening();
    const { port } = server.address() as AddressInfo;
    const environment = { requirements: LOCKED };
    const spec = specOf(['a'], { environment, ports: { ...sshProvider([]).ports, gcs: port } });
    if (spec.nodes.provider !== 'ssh') throw new Error('not over ssh');
    const asking = { ...spec.nodes.head, resources: { num_gpus: 99 } };
    mkdirSync(path.dirname(nodeFolder('lab', spec.nodes, 'a').folder), { mode: 0o777 });
    hosts.add('head', { uv: 'exit 0' });
    hosts.add('a');
    const found = await problemsOf({ ...spec, nodes: { ...spec.nodes, head: asking } }, [
      'head',
      'a',
    ]);
    server.close();
    const [head, a] = ['head: ', 'a: '].map(
      (start) => found.split('\n').find((line) => line.startsWith(start)) ?? '',
    );
    expect(head).toContain('99 GPUs are asked for');
    expect(head).toContain(`port ${port} of 127.0.0.1 is taken`);
    expect(head).not.toContain('uv is not here');
    expect(a).toContain('uv is not here: install it for this user');
    expect(a).toMatch(/rf-\w+ is not a private folder of this user/u);
    expect(found).not.toContain('has no Ray');
    expect(existsSync(hosts.at('a', '.cache'))).toBe(false);
  });

  it('asks for conda where that makes it', async () => {
    hosts.add('head');
    const spec = specOf([], { environment: { conda: 'dependencies: [python]\n' } });
    expect(await problemsOf(spec, ['head'])).toMatch(/^head: conda is not here/u);
    hosts.add('head', { conda: 'exit 0' });
    expect(await problemsOf(spec, ['head'])).toBe('');
  });

  it('asks for no tool where it was made before', async () => {
    const { installPlan } = await import('../../../src/activities/ssh/environment.js');
    hosts.add('head');
    const environment = { requirements: LOCKED };
    const made = path.dirname(path.dirname(installPlan(environment).python)).slice(2);
    mkdirSync(hosts.at('head', made), { recursive: true });
    writeFileSync(hosts.at('head', made, 'ready'), '');
    expect(await problemsOf(specOf([], { environment }), ['head'])).toBe('');
  });

  it('takes a Python in the home of a user for one that has to be there', async () => {
    hosts.add('head');
    const spec = specOf([], { environment: { python: '~/venv/bin/python' } });
    expect(await problemsOf(spec, ['head'])).toMatch(
      /^head: there is no Python at ~\/venv\/bin\/python/u,
    );
    mkdirSync(hosts.at('head/venv/bin'), { recursive: true });
    const file = hosts.at('head/venv/bin/python');
    writeFileSync(file, '#!/bin/sh\nexec /usr/bin/python3 -I -S "$@"\n', { mode: 0o755 });
    expect(await problemsOf(spec, ['head'])).toContain('has no Ray: install it there');
  });
});

describe('a node that is to end', () => {
  const spec = (): ClusterSpec => specOf([], { environment: { python: 'node-python' } });
  const ending = async (program?: string): Promise<unknown> => {
    hosts.add('head', program === undefined ? {} : { 'node-python': program });
    return endNode({ spec: spec(), node: 'head' }).then(
      () => 'ended',
      (error: unknown) => error,
    );
  };

  it('has ended where nothing could have started it', async () => {
    expect(await ending()).toBe('ended');
    expect(await ending('echo "SyntaxError: what is :=" >&2; exit 1')).toBe('ended');
  });

  it('has not ended where its processes do not, or where the agent was killed', async () => {
    const left = `cat > /dev/null; echo '{"refused": "processes do not end: 7"}'`;
    expect(await ending(left)).toMatchObject({
      ...{ type: 'HostRefused', nonRetryable: false },
      message: expect.stringContaining('processes do not end: 7'),
    });
    expect(await ending('exit 137')).toMatchObject({ type: 'HostRefused', nonRetryable: false });
  });
});

describe('a node that does not start', () => {
  const starting = async (spec: ClusterSpec): Promise<unknown> =>
    startNode({ spec, node: 'head' }, async () => {}).catch((error: unknown) => error);

  it('names where its log is, and shows the end of it', async () => {
    const lines = Array.from({ length: 40 }, (_, index) => `line ${index}`).join('\\n');
    hosts.add('head', {
      // Answers as the agent would: it is ready, started, and then ended at once.
      'node-python': [
        'call=$(tail -n 1)',
        'case "$call" in',
        `*'main("status"'*) if [ -e "$HOME/started" ]; then printf '%s\\n' '{"running": false, "ageSeconds": 1, "tail": "${lines}"}'; else exit 1; fi ;;`,
        `*'main("check"'*) echo '{"problems": [], "address": "127.0.0.1"}' ;;`,
        `*'main("start"'*) : > "$HOME/started"; echo '{"pid": 7, "startedAtMs": 1}' ;;`,
        'esac',
      ].join('\n'),
    });
    const spec = specOf([], { environment: { python: 'node-python' }, tokenAuth: false });
    if (spec.nodes.provider !== 'ssh') throw new Error('not over ssh');
    mkdirSync(nodeFolder('lab', spec.nodes, 'head').folder, { recursive: true });
    const wayOut = expect.stringContaining('`rankflow cluster logs lab head`');
    const error = await starting(spec);
    expect(error).toMatchObject({ type: 'ClusterStartFailed', details: [{ wayOut }] });
    const { message } = error as Error;
    expect(message).toMatch(
      /^node head of cluster lab ended\. See `rankflow cluster logs lab head`/u,
    );
    expect(message).toMatch(/line 25\n(?:.*\n)*line 39$/u);
    expect(message).not.toContain('line 24\n');
    const log = readFileSync(path.join(paths.clusters, 'lab/head.log'), 'utf8');
    expect(log).toContain('line 39');
  });
});

describe('a Python that is not there', () => {
  const lookAt = async (python: string) => {
    hosts.add('head');
    const spec = specOf([], { environment: { python } });
    if (spec.nodes.provider !== 'ssh') throw new Error('not over ssh');
    const { processes } = await observeNodes('lab', spec.nodes, ['head']);
    return { spec, head: processes[0] };
  };

  it('has started nothing where it is made with the node, so that this begins at once', async () => {
    const { head, spec } = await lookAt('~/.cache/rankflow/environments/0123/bin/python');
    expect(head).toEqual({ name: 'head', running: false, ageSeconds: 0 });
    expect(await removeNodes({ spec, nodes: ['head'] })).toEqual([]);
  });

  it('says nothing about the node where it is the user’s own', async () => {
    const { head } = await lookAt('~/venv/bin/python');
    expect(head?.unreachable).toMatch(/there is no Python at ~\/venv/u);
  });
});

describe('commands on hosts', () => {
  it.each([1, 3])('are no more than %i at once, whoever asks', async (parallelism) => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f'];
    for (const name of names) hosts.add(name);
    const { nodes } = specOf(names, { parallelism });
    if (nodes.provider !== 'ssh') throw new Error('not over ssh');
    const results = await Promise.all(
      nodes.workers.map(async (node) =>
        hostOf(`bounded-${parallelism}`, nodes, node).run(['sleep', '0.3']),
      ),
    );
    expect(results.map(({ exitCode }) => exitCode)).toEqual(names.map(() => 0));
    const counts = readFileSync(hosts.at('counts'), 'utf8').trim().split('\n').map(Number);
    expect(counts).toHaveLength(names.length);
    expect(Math.max(...counts)).toBe(parallelism);
  });
});
