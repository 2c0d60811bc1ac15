import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { ApplicationFailure } from '@temporalio/common';
import proto from '@temporalio/proto';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import {
  awaitRun,
  findInput,
  planOccurrence,
  prepareScheduledRun,
} from '../../src/activities/scheduled.js';
import { knowsAttributes, startAttributes } from '../../src/client/attributes.js';
import { jobResult, startJob } from '../../src/client/jobs.js';
import {
  checkSchedule,
  createSchedule,
  deleteSchedule,
  triggerSchedule,
} from '../../src/client/schedules.js';
import { JobSpec } from '../../src/contracts/job.js';
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
import { blocksOf } from '../docs/markdown.js';
import { FakeJobs } from '../support/fake-job.js';
import { FakeRun, fakeTemplate } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';
import { RECORDING, keepHistory } from '../support/kept-history.js';
import { World } from '../support/world.js';

const NAMESPACE = 'attributes';
const { IndexedValueType } = proto.temporal.api.enums.v1;

const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-attributes-'));
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
  const jobs = new FakeJobs();
  jobs.ends = [{ status: 'succeeded' }];
  // Its cluster is the world's.
  const ofJobs = ['openJob', 'submitJob', 'followJob', 'endJob'] as const;
  world = await World.start(harness, {
    ...Object.fromEntries(ofJobs.map((name) => [name, jobs.activities[name]])),
    ...{ planOccurrence, findInput, prepareScheduledRun, awaitRun },
    publishResults: async () => ({}),
    pruneScheduled: async () => ({ removed: [] }),
  });
});
afterAll(async () => {
  rmSync(folder, { recursive: true });
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

describe('lists of what schedules and jobs do', { timeout: 60_000 }, () => {
  it('find the starts of a schedule and their runs by its name', async () => {
    const input = path.join(folder, 'requests.jsonl');
    writeFileSync(input, '{}\n');
    world.run = new FakeRun([1]);
    world.run.onFinalized = ({ runId, store }, result) => {
      const run = path.join(store, 'runs', runId);
      mkdirSync(run, { recursive: true });
      const manifest = JSON.stringify({ state: 'completed', ...result });
      writeFileSync(path.join(run, 'manifest.json'), manifest);
    };
    const definition = checkSchedule({
      run: {
        schedule: 'nightly',
        timing: { cron: ['0 2 * * *'], timeZone: 'UTC' },
        input,
        inference: fakeTemplate(folder),
      },
      policies: {},
    });
    await createSchedule(harness.client, definition, { paused: true });
    await triggerSchedule(harness.client, 'nightly');
    const ids = await eventually(async () => {
      const ended = await found("RankflowSchedule = 'nightly' AND RankflowState = 'completed'");
      return ended.length === 2 && ended;
    }, 50);
    expect(ids).toEqual([
      expect.stringMatching(/^inference\/nightly-\d{4}-\d\d-\d\d$/u),
      expect.stringMatching(/^scheduled\/nightly-/u),
    ]);
    expect(await found("RankflowSchedule = 'other'")).toEqual([]);
    await deleteSchedule(harness.client, 'nightly');
  });

  it('find a job by its cluster and state', async () => {
    const spec = JobSpec.parse({
      ...{ jobId: 'found', entrypoint: 'python train.py', store: folder },
      cluster: { name: 'ray', nodes: { provider: 'local', workers: 0 } },
    });
    await startJob(harness.client, { spec, parameters: 'none' });
    expect(await jobResult(harness.client, 'found')).toMatchObject({ state: 'succeeded' });
    const query = "WorkflowType = 'jobWorkflow' AND RankflowCluster = 'ray'";
    await findsAll(`${query} AND RankflowState = 'succeeded'`, ['job/found']);
    expect(await upserts('job/found')).toBeLessThanOrEqual(4);
  });
});

describe('the queries that the documentation has for saving', () => {
  const text = readFileSync(path.join(paths.packageRoot, 'docs/operations.md'), 'utf8');
  const [block] = blocksOf(text.slice(text.indexOf('Queries to save')));
  const queries = block?.code.split('\n') ?? [];

  it.each(queries)('are understood by the server: %s', async (query) => {
    expect(await found(query)).toBeInstanceOf(Array);
  });

  it('are all there', () => {
    expect(queries.length).toBeGreaterThan(5);
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
