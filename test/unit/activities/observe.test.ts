import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';

import { enginesOf, observeCluster, unschedulableIds } from '../../../src/activities/observe.js';
import type { RayNode } from '../../../src/contracts/activities.js';
import { engineActorName } from '../../../src/contracts/names.js';
import type { ActorState } from '../../../src/activities/ray-state.js';
import { planCluster } from '../../../src/workflows/cluster-plan.js';
import { Members } from '../../../src/workflows/members.js';
import { rayNode } from '../../support/fake-cluster.js';
import { sshProvider } from '../../support/ssh-spec.js';

const actor = (slot: number, node: string, state = 'ALIVE') => ({
  ...{ actor_id: `${slot}`, name: engineActorName('models', '0123456789ab', slot), state },
  ...{ node_id: node, pid: 1, num_restarts: 0, death_cause: null },
});
const node = (name: string) => ({
  ...{ node_id: `id-${name}`, node_ip: '10.0.0.1', node_name: name, is_head_node: name === 'head' },
  ...{ state: 'ALIVE', resources_total: { CPU: 2 }, start_time_ms: 1, end_time_ms: 0 },
});
const answers: Record<string, readonly object[]> = {
  nodes: [node('head'), node('a')],
  actors: [
    ...[actor(0, 'id-a'), actor(1, 'id-a'), actor(2, 'id-head', 'DEAD')],
    { ...actor(3, 'id-a'), name: 'sentinel' },
  ],
};

let dashboard: Server;
let listsActors = true;
let listsJobs = true;
beforeEach(() => {
  listsActors = true;
  listsJobs = true;
});
beforeAll(async () => {
  dashboard = createServer((request, response) => {
    if (request.url?.startsWith('/api/jobs/')) {
      response.writeHead(listsJobs ? 200 : 500, { 'content-type': 'application/json' });
      response.end(JSON.stringify([{ type: 'SUBMISSION', status: 'RUNNING' }]));
      return;
    }
    const what = /^\/api\/v0\/(?<what>\w+)/u.exec(request.url ?? '')?.groups?.['what'] ?? '';
    const known = what === 'nodes' || (what === 'actors' && listsActors);
    response.writeHead(known ? 200 : 500, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ result: known, data: { result: { result: answers[what] } } }));
  });
  await new Promise<void>((resolve) => dashboard.listen(0, '127.0.0.1', resolve));
});
afterAll(() => dashboard.close());

const dashboardAt = (): string => `http://127.0.0.1:${(dashboard.address() as AddressInfo).port}`;
const observe = async () => {
  const dashboardUrl = dashboardAt();
  const nodes = { provider: 'existing', address: '10.0.0.1:6379', dashboardUrl } as const;
  return observeCluster({ spec: { name: 'theirs', nodes } });
};

it('counts the engines on the nodes of any cluster, and no other actors', async () => {
  expect(await observe()).toMatchObject({ reachable: true, engines: { 'id-a': 2 } });
});

it('sees a cluster that is not ours also where its engines cannot be counted', async () => {
  listsActors = false;
  const seen = await observe();
  expect(seen).toMatchObject({ reachable: true, nodes: [{ name: 'head' }, { name: 'a' }] });
  expect(seen.engines).toBeUndefined();
});

it.each([
  ['its jobs', { engines: { 'id-a': 2 } }],
  ['its engines', { jobs: 1 }],
  ['either', {}],
])(
  'sees a cluster over ssh also where the dashboard does not say what of %s there is',
  async (what, known) => {
    listsJobs = what === 'its engines';
    listsActors = what === 'its jobs';
    const spec = { name: 'lab', nodes: sshProvider(['a']) };
    const address = { name: 'lab', address: '10.0.0.1:6379', dashboardUrl: dashboardAt() };
    // The head answers where it was seen last; no host is asked.
    const seen = await observeCluster({ spec, nodes: [], address });
    expect(seen).toEqual({
      ...{ reachable: true, address, processes: [], ...known },
      nodes: [expect.objectContaining({ name: 'head' }), expect.objectContaining({ name: 'a' })],
    });
    const processes = ['head', 'a'].map((name) => ({ name, running: true, ageSeconds: 3600 }));
    const members = new Members(spec.nodes);
    const plan = planCluster(spec, { ...seen, processes }, 0, undefined, 0, members);
    expect(plan).toEqual({ end: [], start: [] });
  },
);

it('knows by Ray which nodes have a name that is cordoned now', () => {
  const [first, second] = ['first', 'second'].map((nodeId) => rayNode({ name: 'a', nodeId }));
  const nodes = [{ ...first, alive: false }, second, rayNode({ name: 'b' })] as RayNode[];
  expect(unschedulableIds({ unschedulable: ['a', 'away'] }, nodes)).toEqual(['second']);
  expect(unschedulableIds({}, nodes)).toEqual([]);
});

it('reads which nodes an actor leaves out, and not that it leaves out none where Ray does not say', () => {
  const avoids = (selector?: ActorState['label_selector']): unknown => {
    const one = { ...actor(0, 'id-a'), state: 'PENDING_CREATION' as const };
    const told = selector === undefined ? one : { ...one, label_selector: selector };
    return enginesOf({ name: 'models', specHash: '0123456789ab' }, [told])[0]?.avoids;
  };
  expect(avoids({ 'ray.io/node-id': '!in(one,two)' })).toEqual(['one', 'two']);
  expect(avoids({ 'ray.io/node-id': '!one' })).toEqual(['one']);
  expect(avoids({ 'ray.io/node-id': 'in(one)' })).toEqual([]);
  expect(avoids({ other: '!in(one)' })).toEqual([]);
  expect(avoids({})).toEqual([]);
  expect(avoids(null)).toEqual([]);
  expect(avoids()).toBeUndefined();
});
