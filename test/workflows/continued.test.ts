import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';

import getPort from 'get-port';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { clusterStatus, cordonNodes, ensureCluster } from '../../src/client/clusters.js';
import type { ClusterObservation, ControlActivities } from '../../src/contracts/activities.js';
import {
  SIGNAL,
  clusterWorkflowId,
  fleetWorkflowId,
  inferenceWorkflowId,
} from '../../src/contracts/names.js';
import { ATTRIBUTE } from '../../src/contracts/search-attributes.js';
import type { RunResult } from '../../src/contracts/workflows.js';
import { findTemporal } from '../../src/setup/temporal.js';
import { ADDRESS, rayNode } from '../support/fake-cluster.js';
import { FakeRun } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';
import { sshProvider } from '../support/ssh-spec.js';
import { World } from '../support/world.js';

/** So few that a fleet or a cluster that is up has them within a few looks; by default there are 4,096. */
const EVENTS_OF_A_HISTORY = 40;
const FLEET = fleetWorkflowId('models');
const CLUSTER = clusterWorkflowId('ray');
const TYPES = { KEYWORD: 'Keyword', INT: 'Int' } as const;

/** A cluster over ssh that is its head alone, beside the one that the runs are on. */
let sshHeadRuns = false;
let world: World;
const overSsh: Partial<ControlActivities> = {
  checkNodes: async () => [],
  startNode: async () => {
    sshHeadRuns = true;
  },
  removeNodes: async () => {
    sshHeadRuns = false;
    return [];
  },
  observeCluster: async ({ spec }): Promise<ClusterObservation> => {
    if (spec.nodes.provider !== 'ssh') return world.observeCluster();
    const processes = [{ name: 'head', running: sshHeadRuns, ageSeconds: 1 }];
    return sshHeadRuns
      ? {
          ...{ reachable: true, address: ADDRESS, processes, engines: {}, jobs: 0 },
          nodes: [rayNode({ name: 'head', head: true })],
        }
      : { reachable: false, nodes: [], processes };
  },
};

let server: ChildProcess;
let harness: Harness;

beforeAll(async () => {
  const temporal = await findTemporal();
  const port = await getPort();
  server = spawn(
    temporal?.command ?? '',
    [
      ...['server', 'start-dev', '--headless', '--ip', '127.0.0.1', '--port', String(port)],
      ...['--log-level', 'error', '--dynamic-config-value'],
      `limit.historyCount.suggestContinueAsNew=${EVENTS_OF_A_HISTORY}`,
      ...Object.values(ATTRIBUTE).flatMap(({ name, type }) => [
        '--search-attribute',
        `${name}=${TYPES[type]}`,
      ]),
    ],
    { stdio: 'ignore' },
  );
  harness = await eventually(
    async () => Harness.on(`127.0.0.1:${port}`, 'default').catch(() => undefined),
    30,
  );
  world = await World.start(harness, overSsh);
});
afterAll(async () => {
  await world.reset();
  await harness.close();
  const ended = once(server, 'exit');
  if (server.kill('SIGTERM')) await ended;
});

const described = async (workflowId: string) =>
  harness.client.workflow.getHandle(workflowId).describe();

let deadline = Date.now() + 3_600_000;
/** Has a fleet or a cluster look at once. */
async function wake(workflowId: string): Promise<void> {
  // Notice for a node that nobody has; an earlier one is news each time.
  const notice = { nodeId: 'f'.repeat(40), source: 'url', deadline: (deadline -= 1) };
  await harness.client.workflow.getHandle(workflowId).signal(SIGNAL.preemptionNotice, notice);
}

/** Wakes a fleet or a cluster, again and again, until its history is long enough for a new one. */
async function untilContinued(workflowId: string): Promise<void> {
  const { runId: first } = await described(workflowId);
  await eventually(async () => {
    await wake(workflowId);
    return (await described(workflowId)).runId !== first;
  }, 40);
}

const attributesOf = async (workflowId: string): Promise<Record<string, unknown>> =>
  Object.fromEntries(
    (await described(workflowId)).typedSearchAttributes
      .getAll()
      .filter(({ key }) => key.name.startsWith('Rankflow'))
      .map(({ key, value }) => [key.name, value]),
  );

describe('a fleet and a cluster whose histories begin anew under a run', () => {
  it('are found as before, and the run is told what all of their time cost', async () => {
    world.run = new FakeRun([1]);
    const open = world.run.holdBatches();
    const run = await world.infer('long');
    await eventually(() => world.run.inFlight === 1);
    const since = Date.now();
    const { nodes = [] } = (await clusterStatus(harness.client, 'ray')) ?? {};
    const names = nodes.map(({ name }) => name);
    await cordonNodes(harness.client, 'ray', { nodes: names, unschedulable: true });
    await untilContinued(FLEET);
    await untilContinued(CLUSTER);
    expect((await clusterStatus(harness.client, 'ray'))?.unschedulable).toEqual(names);
    const heldSeconds = (Date.now() - since) / 1000;

    const cluster = { RankflowCluster: 'ray', RankflowState: 'ready' };
    const fleet = { ...cluster, RankflowFleet: 'models', RankflowModel: 'fake-model' };
    expect(await attributesOf(FLEET)).toEqual(fleet);
    expect(await attributesOf(CLUSTER)).toEqual(cluster);
    const query = "RankflowCluster = 'ray' AND ExecutionStatus = 'Running'";
    await eventually(async () => {
      const found = [];
      for await (const { workflowId } of harness.client.workflow.list({ query })) {
        found.push(workflowId);
      }
      return found.toSorted().join() === [CLUSTER, FLEET, inferenceWorkflowId('long')].join();
    });

    open();
    const { usage }: RunResult = await run.result();
    expect(usage?.nodes.map(({ node }) => node)).toEqual(['worker-1']);
    expect(usage?.nodes[0]?.readySeconds).toBeGreaterThan(heldSeconds);
    expect(usage?.generateSeconds).toBeGreaterThan(heldSeconds);
    for (const ended of [FLEET, CLUSTER]) {
      await harness.client.workflow.getHandle(ended).result();
      expect(await attributesOf(ended)).toMatchObject({ RankflowState: 'stopped' });
    }
  });
});

describe('a cluster that nobody uses', () => {
  it('goes in time although its history begins anew again and again', async () => {
    const idleSeconds = 12;
    const workflowId = clusterWorkflowId('idle');
    await ensureCluster(harness.client, {
      name: 'idle',
      nodes: { ...sshProvider([]), idleMinutes: idleSeconds / 60 },
    });
    const since = Date.now();
    const runs = new Set<string>();
    await eventually(async () => {
      const { runId, status } = await described(workflowId);
      runs.add(runId);
      if (status.name !== 'RUNNING') return status.name === 'COMPLETED';
      await wake(workflowId).catch(() => {
        // It has just gone.
      });
      return false;
    }, 45);
    expect(Date.now() - since).toBeGreaterThan((idleSeconds - 1) * 1000);
    expect(runs.size).toBeGreaterThan(2);
    expect(sshHeadRuns).toBe(false);
    const events = (await clusterStatus(harness.client, 'idle'))?.events ?? [];
    expect(events.map(({ what }) => what)).toContain('goes, as nobody has used it');
  });
});
