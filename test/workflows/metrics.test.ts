import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import type { Logger } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import { SIGNAL, clusterWorkflowId, fleetWorkflowId } from '../../src/contracts/names.js';
import { serveControlMetrics } from '../../src/metrics/index.js';
import { installRuntimeWithMetrics } from '../../src/metrics/runtime.js';
import type { MetricsServer } from '../../src/metrics/server.js';
import { Harness, eventually } from '../support/harness.js';
import { World } from '../support/world.js';

const said: string[] = [];
const say = (message: string): void => {
  said.push(message);
};
const logger: Logger = { log: say, trace: say, debug: say, info: say, warn: say, error: say };

let harness: Harness;
let world: World;
let temporalPort: number | undefined;
let server: MetricsServer;

beforeAll(async () => {
  temporalPort = await installRuntimeWithMetrics(logger);
  harness = await Harness.on(inject('temporalAddress'), 'metrics');
  world = await World.start(harness);
  server = await start(0);
});
afterAll(async () => {
  server.close();
  await world.reset();
  await harness.close();
});

async function start(port: number): Promise<MetricsServer> {
  const address = { host: '127.0.0.1', port };
  const started = await serveControlMetrics(address, harness.client, temporalPort, logger);
  if (started === undefined) throw new Error('no metrics');
  return started;
}

const get = async (path: string): Promise<Response> =>
  fetch(`http://127.0.0.1:${server.port}${path}`);

const metrics = async (): Promise<string[]> => (await (await get('/metrics')).text()).split('\n');

/** A port that somebody else uses, for as long as a test needs it. */
async function takenPort(): Promise<Server> {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', () => resolve()));
  return taken;
}

describe('Prometheus gets from the control worker', () => {
  it('the fleets and their engines, the runs that ended, and what the Temporal SDK counts', async () => {
    const run = await world.infer('counted', true);
    await run.result();
    const lines = await eventually(async () => {
      const found = await metrics();
      return found.some((line) => /^rankflow_runs_total.* 1$/u.test(line)) && found;
    });
    expect(lines).toContain('rankflow_engines{fleet="models",state="ready"} 1');
    expect(lines).toContain('rankflow_queue_depth{fleet="models"} 0');
    const runs = lines
      .filter((line) => line.startsWith('rankflow_runs_total'))
      .map((line) => /state="(?<state>\w+)".* (?<count>\d+)$/u.exec(line)?.groups ?? {})
      .map(({ state, count }) => `${state} ${count}`);
    expect(runs.toSorted()).toEqual(['cancelled 0', 'completed 1', 'expired 0', 'failed 0']);
    expect(lines.find((line) => line.startsWith('rankflow_preemptions_total'))).toMatch(
      /cluster="ray".* 0$/u,
    );
    expect(lines.some((line) => line.startsWith('temporal_workflow_completed_total'))).toBe(true);
    expect(lines.some((line) => line.startsWith('process_cpu_seconds_total'))).toBe(true);
  });

  it('the engines to ask, by HTTP service discovery', async () => {
    const answer = await get('/metrics/targets');
    expect(answer.headers.get('content-type')).toBe('application/json');
    expect(await answer.json()).toEqual([
      {
        targets: ['10.0.0.1:9500'],
        labels: { fleet: 'models', slot: '0', cluster: 'ray', model: 'fake-model' },
      },
    ]);
  });

  it('the nodes that had notice to go, each once', async () => {
    const cluster = harness.client.workflow.getHandle(clusterWorkflowId('ray'));
    // The head of the cluster.
    const notice = { nodeId: 'a'.repeat(40), source: 'test', deadline: Date.now() + 600_000 };
    const earlier = { ...notice, deadline: notice.deadline - 60_000 };
    for (const one of [notice, notice, earlier]) await cluster.signal(SIGNAL.preemptionNotice, one);
    // Signals are heard in their order, so this one is counted when all of them were.
    const other = { ...notice, nodeId: 'e'.repeat(40) };
    await cluster.signal(SIGNAL.preemptionNotice, other);
    const line = await eventually(async () =>
      (await metrics()).find((one) => /^rankflow_preemptions_total.* [2-9]$/u.test(one)),
    );
    expect(line).toMatch(/cluster="ray".* 2$/u);
  });

  it('no queries in histories', async () => {
    const fleet = harness.client.workflow.getHandle(fleetWorkflowId('models'));
    const { events = [] } = await fleet.fetchHistory();
    expect(JSON.stringify(events)).not.toContain('QUERY');
  });

  it('nothing at other paths', async () => {
    expect((await get('/')).status).toBe(404);
    expect((await get('/metrics/../etc')).status).toBe(404);
  });
});

describe('a port that is taken', () => {
  it('gives the worker another one, and a line in the log', async () => {
    const taken = await takenPort();
    const { port } = taken.address() as AddressInfo;
    const other = await start(port);
    expect(other.port).not.toBe(port);
    expect(said).toContain('metrics are at another port');
    other.close();
    taken.close();
  });
});
