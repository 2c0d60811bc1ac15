import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { SshProvider } from '../../../src/contracts/cluster.js';
import { sshHost } from '../../../src/hosts/ssh.js';
import { FakeHosts } from '../../support/fake-ssh.js';
import { sshProvider } from '../../support/ssh-spec.js';

const home = mkdtempSync(path.join(tmpdir(), 'rankflow-prepare-'));
const { paths } = await import('../../../src/setup/paths.js');
Object.assign(paths, { home, clusters: path.join(home, 'clusters') });

const { nodeFolder } = await import('../../../src/activities/ssh/node-settings.js');
const { prepareNode } = await import('../../../src/activities/ssh/prepare-node.js');

let hosts: FakeHosts;
let folder: string;
let log: string[];
beforeEach(() => {
  hosts = new FakeHosts();
  hosts.add('head');
  folder = hosts.at('head');
  log = [];
});
afterEach(() => hosts.remove());
afterAll(() => rmSync(home, { recursive: true }));

const at = (name: string): string => path.join(folder, name);

/** Makes this machine ready for the head of a cluster. */
async function prepare(more: Partial<SshProvider>): Promise<unknown> {
  const nodes = {
    ...sshProvider([]),
    // What is free on a machine whatever runs there.
    ports: { ...sshProvider([]).ports, gcs: 36_379, dashboard: 38_265, client: 30_001 },
    environment: { python: paths.python },
    directory: folder,
    ...more,
  };
  const head = { ...nodes.head, address: '127.0.0.1' };
  const preparation = {
    cluster: 'lab',
    nodes,
    node: head,
    host: sshHost({ name: 'head', host: 'head' }),
  };
  return prepareNode({ ...preparation, log: (line) => log.push(line) }).catch(
    (error: unknown) => error,
  );
}

const write = (name: string): string[] => ['sh', '-c', 'echo made >> "$1"', 'sh', at(name)];
const files = () => nodeFolder('lab', { ...sshProvider([]), directory: folder }, 'head');

describe('set-up commands of a node', () => {
  it('run in their order before anything is sent, and what they say is in the log', async () => {
    const words = ["it's", '$HOME', 'a b'];
    const setup = [write('first'), ['cat', at('first')], ['echo', ...words]];
    expect(await prepare({ setup })).toBe('127.0.0.1');
    expect(log).toContain('made');
    expect(log).toContain(words.join(' '));
    expect(existsSync(path.join(files().package, 'rankflow/node/agent.py'))).toBe(true);
    expect(readFileSync(files().token, 'utf8')).toHaveLength(64);
  });

  it('keep the node from starting when one fails, with its last lines and where all of them are', async () => {
    const failing = ['sh', '-c', 'for i in 1 2 3 4 5 6 7; do echo "line $i"; done >&2; exit 3'];
    const error = await prepare({ setup: [failing, write('second')] });
    expect(error).toMatchObject({
      type: 'HostRefused',
      message: expect.stringMatching(
        /set-up command sh -c .* failed \(exit code 3\): line 3; line 4; line 5; line 6; line 7$/u,
      ),
      wayOut: expect.stringContaining('`rankflow cluster logs lab head` shows all'),
    });
    expect(log).toContain('line 1');
    expect(existsSync(at('second'))).toBe(false);
    expect(existsSync(files().folder)).toBe(false);
  });

  it('are ended when they take too long, and named', async () => {
    const slow = ['sh', '-c', 'echo begins; sleep 60'];
    const error = await prepare({ setup: [slow, write('second')], stepTimeoutSeconds: 1 });
    expect(error).toMatchObject({
      type: 'HostTimedOut',
      message: expect.stringMatching(
        /set-up command sh -c echo begins; sleep 60 did not end within 1 s: begins$/u,
      ),
      wayOut: expect.stringContaining('setupTimeoutSeconds'),
    });
    expect(existsSync(at('second'))).toBe(false);
  });

  it('name a program that is not there', async () => {
    expect(await prepare({ setup: [['no-such-program']] })).toMatchObject({
      message: expect.stringMatching(/no-such-program failed \(exit code 127\)/u),
    });
  });
});

it('a node without a token gets none', async () => {
  expect(await prepare({ setup: [], tokenAuth: false })).toBe('127.0.0.1');
  expect(existsSync(files().token)).toBe(false);
});
