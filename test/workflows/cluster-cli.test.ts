import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import { ensureCluster } from '../../src/client/clusters.js';
import type { ControlActivities } from '../../src/contracts/activities.js';
import { CONTROL_QUEUE } from '../../src/contracts/names.js';
import type { ChangeNodesResult, ClusterStatus } from '../../src/contracts/workflows.js';
import { paths } from '../../src/setup/paths.js';
import { ADDRESS, rayNode } from '../support/fake-cluster.js';
import { Harness, eventually } from '../support/harness.js';
import { sshProvider } from '../support/ssh-spec.js';

// The command as it is installed, on a server of Temporal's; the hosts of the cluster are made up.
const program = path.join(paths.packageRoot, 'dist/cli/main.js');
const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-nodes-'));
const running = new Set<string>();
const ended: string[] = [];

const activities: Partial<ControlActivities> = {
  checkNodes: async () => [],
  observeCluster: async ({ nodes = [] }) => ({
    ...{ reachable: running.has('head'), jobs: 0, engines: {} },
    ...(running.has('head') && { address: ADDRESS }),
    nodes: [...running].map((name) =>
      rayNode({ name, nodeId: `id-${name}`, head: name === 'head' }),
    ),
    processes: nodes.map((name) => ({ name, running: running.has(name), ageSeconds: 1 })),
  }),
  startNode: async ({ node }) => {
    running.add(node);
  },
  endNode: async ({ node }) => {
    ended.push(node);
    running.delete(node);
  },
  removeNodes: async () => {
    running.clear();
    return [];
  },
  drainNode: async () => {},
};

let harness: Harness;
beforeAll(async () => {
  harness = await Harness.start('cluster-cli');
  await harness.serve(CONTROL_QUEUE, activities);
  // A folder of this name beside the user is no cluster file.
  mkdirSync(path.join(folder, 'lab'));
  await ensureCluster(harness.client, { name: 'lab', nodes: sshProvider(['a', 'b'], 1) });
});
afterAll(async () => {
  await harness.close();
  rmSync(folder, { recursive: true });
});

const rankflow = (...args: readonly string[]) =>
  execa(process.execPath, [program, 'cluster', ...args], {
    reject: false,
    cwd: folder,
    env: {
      RANKFLOW_HOME: folder,
      TEMPORAL_ADDRESS: inject('temporalAddress'),
      TEMPORAL_NAMESPACE: 'cluster-cli',
      TEMPORAL_CONFIG_FILE: path.join(folder, 'none.toml'),
    },
  });
const json = async <T>(...args: readonly string[]): Promise<T> => {
  const { exitCode, stdout, stderr } = await rankflow(...args, '--json');
  expect([args, exitCode, exitCode === 0 ? '' : stderr]).toEqual([args, 0, '']);
  return JSON.parse(stdout) as T;
};
/** `name state` of each node, once all that run are as told. */
const nodesAre = async (...wanted: readonly string[]): Promise<void> => {
  await eventually(async () => {
    const { nodes } = await json<ClusterStatus>('status', 'lab');
    const found = nodes.map(({ name, state }) => `${name} ${state}`);
    return JSON.stringify(found) === JSON.stringify(wanted);
  }, 60);
};
type Changed = ChangeNodesResult & { readonly name: string };

describe('the commands of nodes', { timeout: 240_000 }, () => {
  it('cordon nodes and take that back, and say what was so already', async () => {
    expect(await json('cordon', 'lab', 'a', 'head')).toEqual({
      ...{ name: 'lab', changed: ['a', 'head'], cordoned: ['a', 'head'] },
    });
    const again = await rankflow('cordon', 'lab', 'a', 'b');
    expect([again.exitCode, again.stdout, again.stderr.split('\n')]).toEqual([
      0,
      'lab',
      ['Cordoned: b.', 'Already cordoned: a.', 'All that are cordoned: a, head, b.'],
    ]);
    const { stdout } = await rankflow('status', 'lab');
    expect(stdout).toMatch(/^head +alive, cordoned /mu);
    expect(stdout).toMatch(/^b +spare, cordoned /mu);
    const back = await rankflow('uncordon', 'lab', 'a', 'b', 'head');
    expect([back.exitCode, back.stderr.split('\n')]).toEqual([
      0,
      ['Uncordoned: a, b, head.', 'All that are cordoned: none.'],
    ]);
    const none = await rankflow('uncordon', 'lab', 'a');
    expect([none.exitCode, none.stderr.split('\n')[0]]).toEqual([0, 'Not cordoned: a.']);
    expect((await rankflow('status', 'lab')).stdout).not.toContain('alive, cordoned');
  });

  it('add hosts: as nodes, or only to take the place of others', async () => {
    expect(await json<Changed>('add', 'lab', '10.0.0.[7-8]', '--spare')).toEqual({
      ...{ name: 'lab', active: ['a'], spares: ['b', '10.0.0.7', '10.0.0.8'] },
    });
    expect(await json<Changed>('add', 'lab', 'c')).toMatchObject({ active: ['a', 'c'] });
    await nodesAre(
      'head alive',
      'a alive',
      'c alive',
      'b spare',
      '10.0.0.7 spare',
      '10.0.0.8 spare',
    );
    // A spare, too, is a node when it is named.
    expect(await json<Changed>('add', 'lab', '10.0.0.8')).toMatchObject({
      active: ['a', 'c', '10.0.0.8'],
    });
  });

  it('scale it, and say how many nodes there are', async () => {
    const { exitCode, stdout, stderr } = await rankflow('scale', 'lab', '4');
    expect([exitCode, stdout]).toEqual([0, 'lab']);
    expect(stderr).toContain('Worker nodes: ');
    await eventually(() => running.has('b'));
    const { nodes } = await json<ClusterStatus>('status', 'lab');
    expect(nodes.filter(({ state }) => state !== 'spare')).toHaveLength(5);
  });

  it('remove a node: it ends, and a spare takes its place', async () => {
    const { exitCode, stdout } = await rankflow('remove', 'lab', 'b');
    expect([exitCode, stdout]).toEqual([0, 'lab']);
    await eventually(() => ended.includes('b'));
    await eventually(async () => {
      const { nodes } = await json<ClusterStatus>('status', 'lab');
      return nodes.every(({ name }) => name !== 'b');
    });
  });

  it('add without hosts all that the cluster was asked for and lacks', async () => {
    const before = running.size;
    const { active } = await json<Changed>('add', 'lab');
    expect(active.at(-1)).toBe('b');
    await eventually(() => running.has('b'));
    expect(running.size).toBe(before + 1);
  });

  it.each([
    [['add', 'lab', 'h!'], 'h!: expected a host name'],
    [['add', 'lab', 'd', 'd'], 'there are two nodes called d'],
    [['add', 'lab', '10.0.0.1'], '10.0.0.1 is the host of head, too'],
    [['add', 'lab'], 'name a host'],
    [['scale', 'lab', 'two'], 'expected a whole number'],
    [['scale', 'lab', '99'], 'add some'],
    [['remove', 'lab', 'nobody'], 'there is no node nobody'],
    [['remove', 'elsewhere', 'a'], 'There is no cluster elsewhere up'],
    [['cordon', 'lab', 'a', 'nobody'], 'there is no node nobody; there are head, a, '],
    [['uncordon', 'lab', 'nobody'], 'way out: Name nodes as `rankflow cluster status lab` does.'],
    [['cordon', 'elsewhere', 'a'], 'There is no cluster elsewhere up'],
    [['cordon', 'lab'], "missing required argument 'nodes'"],
  ])('refuse %j, and change nothing', async (args, why) => {
    const before = [...running];
    const { exitCode, stderr } = await rankflow(...args);
    expect([exitCode, stderr]).toEqual([2, expect.stringContaining(why)]);
    expect([...running]).toEqual(before);
  });

  it('take it down', async () => {
    const { exitCode, stdout, stderr } = await rankflow('down', 'lab');
    expect([exitCode, stdout, stderr]).toEqual([0, 'lab', 'The cluster is down.']);
    expect([...running]).toEqual([]);
  });
});
