import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import path from 'node:path';

import { afterEach, beforeEach, expect, it } from 'vitest';

import type { Fault } from '../../chaos/faults/fault.js';
import { drainNode, killAllNodes, killHead, killNode, preempt0 } from '../../chaos/faults/nodes.js';
import type { Health } from '../../chaos/lab/health.js';
import { Lab } from '../../chaos/lab/lab.js';
import type { Stack } from '../../chaos/lab/stack.js';
import type { Trial } from '../../chaos/lab/trial.js';
import { Random } from '../../chaos/random.js';
import { FolderReader } from '../../chaos/store/reader.js';
import { RunView } from '../../chaos/store/view.js';
import { StoredRun } from './stored-run.js';

const NODE = 'worker-1';
let run: StoredRun;
let started: ChildProcess[];

beforeEach(() => {
  run = new StoredRun();
  started = [];
  run.plan();
  run.attempt(0, 't0-1', [0, 1]);
  // In work on an engine elsewhere.
  run.attempt(1, 't1-1', [4]);
});

afterEach(() => {
  for (const child of started) child.kill('SIGKILL');
  run.remove();
});

/** A process of a node; an engine at work when it has an attempt open. */
function start(node: string, attempt?: number): number {
  const env = { RANKFLOW_NODE: `${run.home}/${node}` };
  const stdio = ['ignore', attempt ?? 'ignore', 'ignore'] as const;
  const child = spawn('/bin/sleep', ['60'], { env, stdio: [...stdio] });
  started.push(child);
  return child.pid ?? 0;
}

/** What of the run is at risk when a fault hits the first node, and is aimed at another run, of another fleet. */
async function atRisk(fault: Fault, on: string): Promise<readonly number[] | undefined> {
  const file = path.join(run.store, 'runs/run-1/attempts/0000-000000/t0-1.jsonl');
  const leaders = new Map(['head', NODE, 'worker-2'].map((node) => [node, start(node)]));
  const attempt = openSync(file, 'a');
  start(on, attempt);
  closeSync(attempt);
  const stack = {
    nodes: () => [...leaders.keys()],
    nodeLeader: (_cluster: string, node: string) =>
      node === 'worker-2' && fault !== killHead ? undefined : leaders.get(node),
    process: () => start('none'),
    fleetStatus: async () => ({ slots: [] }),
    home: { file: () => path.join(run.home, 'preempted') },
  } as unknown as Stack;
  const aimedAt = new RunView('run-0', new FolderReader(run.store));
  aimedAt.finishedAt.set(0, Date.now());
  const trialOf = (view: RunView, fleet: string): Trial =>
    ({ runId: view.runId, view, fleet, cluster: 'local', stack, ended: false }) as Trial;
  const lab = new Lab(stack, {} as Health, 'simulated', () => {});
  const [aimed, other] = [trialOf(aimedAt, 'main'), trialOf(run.view, 'short')];
  for (const trial of [aimed, other]) lab.trials.add(trial);
  // Of the strike itself nothing is needed here.
  const none = { strike: () => {}, heal: () => {}, holdSeconds: 0 };
  const harmless: Fault = {
    ...fault,
    aim: async (target) => ({ ...(await fault.aim(target)), ...none }),
  };
  await lab.inject(harmless, 'generate', aimed, new Random(1));
  expect(aimedAt.snapshots[0]?.atRisk).toEqual([]);
  return run.view.snapshots[0]?.atRisk;
}

it.each([killNode, drainNode, killAllNodes, killHead, preempt0])(
  '$name puts rows of every fleet at risk that has an engine there',
  async (fault) => {
    expect(await atRisk(fault, NODE)).toEqual([2, 3]);
  },
);

it('a node that is lost puts nothing at risk of a run whose engines are elsewhere', async () => {
  expect(await atRisk(killNode, 'worker-2')).toEqual([]);
});
