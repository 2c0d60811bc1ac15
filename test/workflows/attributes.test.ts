import { tmpdir } from 'node:os';
import path from 'node:path';

import { ApplicationFailure } from '@temporalio/common';
import proto from '@temporalio/proto';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import { knowsAttributes, startAttributes } from '../../src/client/attributes.js';
import {
  CONTROL_QUEUE,
  QUERY,
  SIGNAL,
  UPDATE,
  WORKFLOW,
  fleetWorkflowId,
  inferenceWorkflowId,
} from '../../src/contracts/names.js';
import { ATTRIBUTE, attributePairs } from '../../src/contracts/search-attributes.js';
import { paths } from '../../src/setup/paths.js';
import { Harness, eventually } from '../support/harness.js';
import { RECORDING, keepHistory } from '../support/kept-history.js';
import { World } from '../support/world.js';

const NAMESPACE = 'attributes';
const { IndexedValueType } = proto.temporal.api.enums.v1;

let harness: Harness;
let world: World;

beforeAll(async () => {
  harness = await Harness.start(NAMESPACE);
  const { connection } = harness.client;
  await connection.operatorService.addSearchAttributes({
    namespace: NAMESPACE,
    searchAttributes: Object.fromEntries(
      Object.values(ATTRIBUTE).map(({ name, type }) => [
        name,
        type === 'INT'
          ? IndexedValueType.INDEXED_VALUE_TYPE_INT
          : IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
      ]),
    ),
  });
  // The server learns of them by and by.
  await eventually(async () => {
    const { customAttributes } = await connection.operatorService.listSearchAttributes({
      namespace: NAMESPACE,
    });
    return ATTRIBUTE.state.name in customAttributes;
  });
  world = await World.start(harness);
});
afterAll(async () => {
  await world.reset();
  await harness.close();
});

/** Ids of the workflows that a query finds. */
async function found(query: string): Promise<string[]> {
  const ids: string[] = [];
  for await (const { workflowId } of harness.client.workflow.list({ query })) ids.push(workflowId);
  return ids.toSorted();
}

const findsAll = async (query: string, ids: readonly string[]): Promise<unknown> =>
  eventually(async () => (await found(query)).join() === ids.join());

/** How often a workflow changed its search attributes; Temporal's own for patches do not count. */
async function upserts(workflowId: string): Promise<number> {
  const { events } = await harness.client.workflow.getHandle(workflowId).fetchHistory();
  return (events ?? []).filter(({ upsertWorkflowSearchAttributesEventAttributes: change }) =>
    Object.keys(change?.searchAttributes?.indexedFields ?? {}).some((name) =>
      name.startsWith('Rankflow'),
    ),
  ).length;
}

describe('lists of workflows', () => {
  it('find a run by model, fleet, cluster, state, rows and failures, from its start to its end', async () => {
    let goOn = (): void => {};
    const waits = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    world.run.onBatch = async () => waits;
    const run = await world.infer('found', true);
    await findsAll("RankflowState = 'in_progress' AND RankflowRows = 10", ['inference/found']);
    await findsAll("RankflowModel = 'fake-model'", ['fleet/models', 'inference/found']);
    await findsAll("RankflowFleet = 'models' AND RankflowState = 'ready'", ['fleet/models']);
    await findsAll("RankflowCluster = 'ray' AND WorkflowType = 'clusterWorkflow'", ['cluster/ray']);
    await run.signal(SIGNAL.pause);
    await findsAll("RankflowState = 'paused'", ['inference/found']);
    await run.signal(SIGNAL.resume);
    await findsAll("RankflowState = 'in_progress'", ['inference/found']);
    goOn();
    await run.result();
    await findsAll("RankflowState = 'completed' AND RankflowFailedRows = 0", ['inference/found']);
    expect(await upserts('inference/found')).toBeLessThanOrEqual(6);
  });

  it('find runs that failed', async () => {
    world.run.onPlan = () => {
      throw ApplicationFailure.nonRetryable('line 3 is no JSON', 'InvalidInput');
    };
    const run = await world.infer('failed', true);
    await expect(run.result()).rejects.toThrow();
    await findsAll("RankflowState = 'failed'", ['inference/failed']);
    world.run.onPlan = () => {};
  });

  it('find a fleet by the state that it is in when it has ended', async () => {
    await harness.client.workflow
      .getHandle(fleetWorkflowId('models'))
      .executeUpdate(UPDATE.stopFleet, { args: [{}] });
    await findsAll("RankflowState = 'stopped'", ['fleet/models']);
    expect(await upserts('fleet/models')).toBeLessThanOrEqual(4);
    if (RECORDING) {
      await keepHistory(harness.client, 'inference-attributes', 'inference/found');
      await keepHistory(harness.client, 'fleet-attributes', 'fleet/models');
    }
  });
});

describe('a namespace without the attributes', () => {
  it('starts workflows without them, and they never use any', async () => {
    const other = await Harness.on(inject('temporalAddress'), 'client');
    try {
      expect(await knowsAttributes(other.client)).toBe(false);
      expect(await startAttributes(other.client, { state: 'starting' })).toEqual({});
    } finally {
      await other.close();
    }
    // As a workflow does that an older Rankflow started.
    const old = await harness.client.workflow.start(WORKFLOW.cluster, {
      workflowId: 'cluster/old',
      taskQueue: CONTROL_QUEUE,
      args: [{ spec: { name: 'old', nodes: { provider: 'local', workers: 0 } } }],
    });
    await eventually(async () => (await old.query<{ state: string }>(QUERY.status)).state);
    await old.executeUpdate(UPDATE.stopCluster, { args: [{}] });
    await old.result();
    expect(await upserts('cluster/old')).toBe(0);
  });
});

describe('pictures of the web interface', () => {
  const script = path.join(paths.packageRoot, 'scripts/screenshots.js');
  const pictures = (args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
    execa(process.execPath, [script, ...args], {
      reject: false,
      env: {
        RANKFLOW_HOME: path.join(tmpdir(), 'rankflow-nowhere'),
        TEMPORAL_ADDRESS: inject('temporalAddress'),
        TEMPORAL_NAMESPACE: NAMESPACE,
        TEMPORAL_CONFIG_FILE: '/nonexistent',
        ...env,
      },
    });

  it('are of the newest run of each kind, and what is not there is named', async () => {
    // The server learns of it by and by.
    await harness.client.workflow.start(WORKFLOW.inference, {
      workflowId: inferenceWorkflowId('pictured'),
      taskQueue: 'nobody',
      typedSearchAttributes: attributePairs({ state: 'failed' }),
    });
    const { stdout, stderr } = await eventually(async () => {
      const seen = await pictures(['--addresses', '--ui', 'http://ui']);
      return seen.stdout.includes('failed-run') && seen;
    }, 60);
    const lines = stdout.split('\n');
    expect(lines[0]).toBe(`workflows http://ui/namespaces/${NAMESPACE}/workflows`);
    const page = /^failed-run(?:-details)? http:\/\/ui\S+\/inference%2Fpictured\/[\w-]+\/[\w-]+$/u;
    expect(lines.filter((line) => page.test(line))).toHaveLength(2);
    expect(stderr).toContain('schedule: left out, as there is no schedule');
    await harness.client.workflow.getHandle(inferenceWorkflowId('pictured')).terminate();
  });

  it('need a browser, and a web interface', async () => {
    const none = await pictures([], { PATH: '/nonexistent', RANKFLOW_BROWSER: '' });
    expect(none).toMatchObject({ exitCode: 2, stdout: '' });
    expect(none.stderr).toContain('`apt-get install chromium`');
    const wrong = await pictures(['--browser', '/nonexistent/chromium']);
    expect(wrong.stderr).toMatch(/^\/nonexistent\/chromium is no program\./u);
    const down = await pictures(['--browser', process.execPath]);
    expect(down).toMatchObject({ exitCode: 3, stdout: '' });
    expect(down.stderr).toContain('rankflow up');
  });
});

describe('the values of attributes', () => {
  it('fit the columns of a SQL database', () => {
    const model = `/models/${'deep/'.repeat(80)}model`;
    const [pair] = attributePairs({ model });
    expect(pair?.value).toHaveLength(255);
    expect(pair?.value).toMatch(/\/model$/u);
  });
});
