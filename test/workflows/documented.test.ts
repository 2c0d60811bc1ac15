import { mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import { fleetStatus } from '../../src/client/fleets.js';
import { runSnapshot } from '../../src/client/progress.js';
import { runResult } from '../../src/client/runs.js';
import type { FleetStatus } from '../../src/contracts/workflows.js';
import { paths } from '../../src/setup/paths.js';
import { findTemporal } from '../../src/setup/temporal.js';
import { blocksOf } from '../docs/markdown.js';
import { rayNode } from '../support/fake-cluster.js';
import { FakeRun } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';
import { World } from '../support/world.js';

// What the documentation has one type, with the real command line of Temporal and Rankflow's own.
const NAMESPACE = 'documented';
const program = path.join(paths.packageRoot, 'dist/cli/main.js');
const home = mkdtempSync(path.join(tmpdir(), 'rankflow-documented-'));
let harness: Harness;
let world: World;
let env: Readonly<Record<string, string>>;

beforeAll(async () => {
  symlinkSync(paths.venv, path.join(home, 'venv'));
  const temporal = await findTemporal();
  env = {
    RANKFLOW_HOME: home,
    TEMPORAL_ADDRESS: inject('temporalAddress'),
    TEMPORAL_NAMESPACE: NAMESPACE,
    TEMPORAL_CONFIG_FILE: path.join(home, 'none.toml'),
    PATH: `${path.dirname(temporal?.command ?? '')}:${process.env['PATH']}`,
  };
  harness = await Harness.start(NAMESPACE);
  world = await World.start(harness);
  world.ray.nodes = [rayNode({ cpus: 16 })];
});
afterAll(async () => {
  await world.reset();
  await harness.close();
  rmSync(home, { recursive: true });
});

/** The commands that send signals by hand, in the order of the document. */
function signalCommands(): string[] {
  const text = readFileSync(path.join(paths.packageRoot, 'docs/operations.md'), 'utf8');
  const [block] = blocksOf(text.slice(text.indexOf("from Temporal's command line:")));
  return (block?.code ?? '').replaceAll(/\\\n\s*/gu, '').split('\n');
}

describe('steering by hand', { timeout: 120_000 }, () => {
  it('works with each command as it is written', async () => {
    // More batches than eight engines have in flight.
    world.run = new FakeRun([80]);
    let open = world.run.holdBatches();
    await world.infer('by-hand', true);
    await eventually(() => world.run.inFlight > 0, 40);
    const commands = signalCommands();
    const send = async (runId = 'by-hand'): Promise<void> => {
      const command = commands.shift() ?? '';
      expect(command).toMatch(/^temporal workflow signal /u);
      const typed = command.replace('fleet/NAME', 'fleet/models').replace('/RUN', `/${runId}`);
      await execa('sh', ['-c', typed], { env });
    };
    const fleet = async (is: (status: FleetStatus) => boolean): Promise<void> => {
      await eventually(async () => {
        const status = await fleetStatus(harness.client, 'models');
        return status !== undefined && is(status);
      }, 40);
    };
    const run = async (state: string, runId = 'by-hand'): Promise<void> => {
      await eventually(async () => (await runSnapshot(harness.client, runId)).state === state, 40);
    };

    await send();
    await fleet(({ desired }) => desired === 4);
    await send();
    await fleet(({ scaling }) => scaling?.maxEngines === 8 && scaling.minEngines === 0);
    await send();
    await run('paused');
    expect(world.run.inFlight).toBeGreaterThan(0);
    await send();
    // With `now`, batches in flight are given up.
    await eventually(() => world.run.inFlight === 0, 40);
    await send();
    await run('in_progress');
    await eventually(() => world.run.inFlight > 0, 40);
    await send();
    // A drain lets them end; the signal is there before they do.
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    open();
    expect(await runResult(harness.client, 'by-hand')).toMatchObject({ state: 'cancelled' });

    world.run = new FakeRun([6]);
    open = world.run.holdBatches();
    await world.infer('by-hand-2', true);
    await eventually(() => world.run.inFlight > 0, 40);
    await send('by-hand-2');
    expect(await runResult(harness.client, 'by-hand-2')).toMatchObject({ state: 'cancelled' });
    expect(commands).toEqual([]);
    open();
  });

  it('says of a run that has ended that it had, with the same exit code for each command', async () => {
    for (const command of ['pause', 'resume', 'drain', 'cancel']) {
      const { exitCode, stdout, stderr } = await execa(
        process.execPath,
        [program, command, 'by-hand'],
        { env, reject: false },
      );
      const said = 'The run had ended already.';
      expect([command, exitCode, stdout, stderr]).toEqual([command, 2, 'by-hand', said]);
    }
  });
});
