import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { DefaultLogger, Runtime, bundleWorkflowCode } from '@temporalio/worker';
import getPort from 'get-port';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { runSnapshot } from '../../src/client/progress.js';
import {
  CONTROL_QUEUE,
  QUERY,
  UPDATE,
  clusterWorkflowId,
  fleetWorkflowId,
  inferenceWorkflowId,
  rankWorkflowId,
  runWorkflowId,
} from '../../src/contracts/names.js';
import type { FleetStatus, RunResult } from '../../src/contracts/workflows.js';
import { findTemporal } from '../../src/setup/temporal.js';
import type { Build } from '../../src/workers/build.js';
import { INTERCEPTORS, workflowsPath } from '../../src/workers/workflow-code.js';
import { becomeCurrent, readDeployment } from '../../src/workers/deployment.js';
import { FakeRun } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';
import { RECORDING, keepHistory } from '../support/kept-history.js';
import { World } from '../support/world.js';

const A: Build = { id: '0.1.0-aaaaaaaaaaaa', release: '0.1.0' };
const B: Build = { id: '0.2.0-bbbbbbbbbbbb', release: '0.2.0' };
const FLEET = fleetWorkflowId('models');
const CLUSTER = clusterWorkflowId('ray');
/** By default the server looks every three minutes, at what visibility had three minutes before. */
const SOON = ['VisibilityGracePeriod', 'RefreshInterval'].flatMap((name) => [
  '--dynamic-config-value',
  `matching.wv.VersionDrainageStatus${name}="1s"`,
]);

const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-upgrade-'));
const codePath = path.join(folder, 'workflows.js');
let server: ChildProcess;
let harness: Harness;
let world: World;
let open: () => void;

beforeAll(async () => {
  Runtime.install({ logger: new DefaultLogger('ERROR') });
  const temporal = await findTemporal();
  const port = await getPort();
  server = spawn(
    temporal?.command ?? '',
    [
      ...['server', 'start-dev', '--headless', '--ip', '127.0.0.1', '--port', String(port)],
      // In a file: what is in memory alone goes when a busy machine lets all its connections end.
      ...['--log-level', 'error', '--db-filename', path.join(folder, 'temporal.db'), ...SOON],
    ],
    { stdio: 'ignore' },
  );
  const { code } = await bundleWorkflowCode({
    workflowsPath: workflowsPath(true),
    workflowInterceptorModules: [...INTERCEPTORS],
    logger: new DefaultLogger('WARN'),
  });
  writeFileSync(codePath, code);
  harness = await eventually(
    async () => Harness.on(`127.0.0.1:${port}`, 'default').catch(() => undefined),
    30,
  );
});
afterAll(async () => {
  await world.reset();
  await harness.close();
  const ended = once(server, 'exit');
  if (server.kill('SIGTERM')) await ended;
  rmSync(folder, { recursive: true, force: true });
});

/** A run whose batches wait until they are let go on. */
function gated(batches: number): FakeRun {
  const run = new FakeRun([batches]);
  open = run.holdBatches();
  return run;
}

const described = async (id: string) => harness.client.workflow.getHandle(id).describe();

/** The builds that did the steps of a workflow, over all its histories. */
async function buildsOf(workflowId: string): Promise<(string | undefined)[]> {
  const builds = new Set<string | undefined>();
  const query = `WorkflowId = '${workflowId}'`;
  for await (const { runId } of harness.client.workflow.list({ query })) {
    const { events } = await harness.client.workflow.getHandle(workflowId, runId).fetchHistory();
    for (const { workflowTaskCompletedEventAttributes: step } of events ?? []) {
      if (step) builds.add(step.deploymentVersion?.buildId ?? undefined);
    }
  }
  return [...builds].toSorted((a = '', b = '') => a.localeCompare(b));
}

const fleetStatus = async () =>
  harness.client.workflow.getHandle(FLEET).query<FleetStatus>(QUERY.status);

describe('a control worker of another build beside one that runs', () => {
  it(
    'takes over what lives for long, and what begins; a run ends where it began',
    { timeout: 120_000 },
    async () => {
      // As before there were builds: unversioned.
      world = await World.start(harness);
      world.run = gated(2);
      const before = await world.infer('unversioned', true);
      await eventually(() => world.run.inFlight === 2, 40);
      const openBefore = open;

      await harness.serve(CONTROL_QUEUE, world.control(), undefined, { id: A.id, codePath });
      expect(await becomeCurrent(harness.client, A, false)).toBe('is current');
      openBefore();
      expect(((await before.result()) as RunResult).state).toBe('completed');
      await eventually(async () => (await buildsOf(FLEET)).includes(A.id), 90);

      world.run = gated(3);
      const run = await world.infer('pinned');
      await eventually(() => world.run.inFlight === 3, 40);
      await harness.client.workflow.getHandle(FLEET).executeUpdate(UPDATE.scaleFleet, {
        args: [{ engines: 1 }],
      });
      const { runId: first } = await described(FLEET);
      const was = await fleetStatus();

      await harness.serve(CONTROL_QUEUE, world.control(), undefined, { id: B.id, codePath });
      expect(await becomeCurrent(harness.client, B, false)).toBe('is current');
      // It is not the newest any more, and nobody told it to.
      expect(await becomeCurrent(harness.client, A, false)).toBe('a newer release is current');
      await eventually(async () => (await described(FLEET)).runId !== first, 90);
      const is = await fleetStatus();
      expect(is).toEqual({ ...was, usage: is.usage });
      expect(is.users).toContain(inferenceWorkflowId('pinned'));
      // The server writes that down in its own time.
      await eventually(
        async () => (await readDeployment(harness.client))?.builds.get(A.id) === 'draining',
      );

      open();
      // Whoever looks sees it, also when it has ended.
      expect((await runSnapshot(harness.client, 'pinned')).build).toBe(A.id);
      expect(((await run.result()) as RunResult).state).toBe('completed');
      expect((await runSnapshot(harness.client, 'pinned')).build).toBe(A.id);
      for (const id of [
        inferenceWorkflowId('pinned'),
        runWorkflowId('pinned'),
        rankWorkflowId('pinned', 0),
      ]) {
        expect(await buildsOf(id), id).toEqual([A.id]);
      }

      world.run = new FakeRun([1]);
      await (await world.infer('new')).result();
      expect(await buildsOf(inferenceWorkflowId('new'))).toEqual([B.id]);
      expect(await buildsOf(rankWorkflowId('new', 0))).toEqual([B.id]);
      await eventually(
        async () => (await readDeployment(harness.client))?.builds.get(A.id) === 'drained',
        60,
      );

      // Back, since somebody says so.
      expect(await becomeCurrent(harness.client, A, true)).toBe('is current');
      expect(await becomeCurrent(harness.client, B, false)).toBe('was current before');
      world.run = new FakeRun([1]);
      await (await world.infer('back')).result();
      expect(await buildsOf(inferenceWorkflowId('back'))).toEqual([A.id]);
      for (const [id, update] of [
        [FLEET, UPDATE.stopFleet],
        [CLUSTER, UPDATE.stopCluster],
      ] as const) {
        await harness.client.workflow.getHandle(id).executeUpdate(update);
      }
      if (RECORDING) {
        // Their first histories, which a second build took over in the middle.
        await keepHistory(harness.client, 'fleet-taken-over', FLEET);
        await keepHistory(harness.client, 'cluster-taken-over', CLUSTER);
        await keepHistory(harness.client, 'run-taken-over', runWorkflowId('unversioned'));
      }
    },
  );
});
