import { readFileSync, writeFileSync } from 'node:fs';

import { enginesOf, openAttempts } from '../lab/engines.js';
import { hasVariable, processTable, signal } from '../lab/processes.js';
import type { Trial } from '../lab/trial.js';
import { CLUSTER, NODE } from './bounds.js';
import { type Fault, type Strike, type Target, need } from './fault.js';

const MARKER = 'RANKFLOW_NODE';
/** How long nobody brings capacity back after all nodes are lost. */
const NO_CAPACITY_S = 20;
/** After so long a node that drains aborts, Ray's default. */
const RAY_DRAINS_S = 30;

/** Every process of a node, whatever group it is in, as when a machine is switched off. */
function processesOfNode(trial: Trial, node: string): number[] {
  const leader = trial.stack.nodeLeader(trial.cluster, node);
  // Another fault was faster.
  if (leader === undefined) return [];
  const variables = readFileSync(`/proc/${leader}/environ`, 'latin1').split('\0');
  const marker = need(
    variables.find((variable) => variable.startsWith(`${MARKER}=`)),
    'the marker of the node',
  );
  return processTable()
    .map(({ pid }) => pid)
    .filter((pid) => hasVariable(pid, marker));
}

const workersOf = (trial: Trial): string[] =>
  trial.stack
    .nodes(trial.cluster)
    .filter((node) => node !== 'head')
    .filter((node) => trial.stack.nodeLeader(trial.cluster, node) !== undefined);

/** A worker node, with an engine that works if there is one. */
async function aWorker({ trial, random }: Target): Promise<string> {
  const workers = workersOf(trial);
  const engines = enginesOf(await trial.stack.fleetStatus(trial.fleet));
  const working = engines.filter((engine) => openAttempts(engine, trial.view).length > 0);
  const busy = workers.filter((node) => {
    const pids = processesOfNode(trial, node);
    return working.some(({ pid }) => pids.includes(pid));
  });
  const choice = busy.length > 0 ? busy : workers;
  return need(choice.length === 0 ? undefined : random.pick(choice), 'a worker node');
}

/** A node takes the engines of every fleet with it; its other processes have no attempt open. */
const enginesAmong = (pids: readonly number[]): NonNullable<Strike['engines']> =>
  pids.map((pid) => ({ pid }));

const kill = (pids: readonly number[]): void => {
  for (const pid of pids) signal(pid, 'SIGKILL');
};

export const killNode: Fault = {
  name: 'kill-node',
  title: 'SIGKILL of everything on a worker node',
  phases: ['generate', 'deploy', 'commit', 'teardown'],
  backends: ['simulated', 'vllm'],
  scope: 'cluster',
  bound: NODE,
  aim: async (target) => {
    const node = await aWorker(target);
    const pids = processesOfNode(target.trial, node);
    return {
      what: `${node} (${pids.length} processes)`,
      engines: enginesAmong(pids),
      strike: () => kill(pids),
    };
  },
};

export const killRaylet: Fault = {
  name: 'kill-raylet',
  title: 'SIGKILL of the raylet of a worker node alone: its engines notice',
  phases: ['generate', 'deploy'],
  backends: ['simulated', 'vllm'],
  scope: 'cluster',
  bound: NODE,
  aim: async (target) => {
    const node = await aWorker(target);
    const pids = processesOfNode(target.trial, node);
    const raylet = need(
      processTable().find(
        ({ pid, command }) => pids.includes(pid) && command.includes('/raylet/raylet '),
      ),
      'the raylet',
    );
    return {
      what: `raylet of ${node} (pid ${raylet.pid})`,
      engines: enginesAmong(pids),
      strike: () => void signal(raylet.pid, 'SIGKILL'),
    };
  },
};

export const killHead: Fault = {
  name: 'kill-head',
  title: 'SIGKILL of everything on the Ray head',
  phases: ['generate', 'bring-up', 'deploy', 'commit'],
  backends: ['simulated', 'vllm'],
  scope: 'cluster',
  bound: CLUSTER,
  aim: async ({ trial }) => {
    need(trial.stack.nodeLeader(trial.cluster, 'head'), 'the head');
    const pids = processesOfNode(trial, 'head');
    const nodes = trial.stack.nodes(trial.cluster);
    return {
      what: `head (${pids.length} processes)`,
      // Raylets that lose their head end, and their engines with them.
      engines: enginesAmong(nodes.flatMap((node) => processesOfNode(trial, node))),
      strike: () => kill(pids),
    };
  },
};

export const killAllNodes: Fault = {
  name: 'kill-all-nodes',
  title: 'SIGKILL of all worker nodes at once; capacity is back later',
  phases: ['generate', 'deploy'],
  backends: ['simulated', 'vllm'],
  scope: 'cluster',
  bound: { simulated: NODE.simulated + NO_CAPACITY_S, vllm: NODE.vllm + NO_CAPACITY_S },
  aim: async ({ trial }) => {
    const workers = workersOf(trial);
    const pids = workers.flatMap((node) => processesOfNode(trial, node));
    const control = need(trial.stack.process('control-worker'), 'the control worker');
    return {
      what: workers.join(', '),
      engines: enginesAmong(pids),
      // Nodes are started by the control worker: while it is held, nobody brings them back.
      strike: () => {
        signal(control, 'SIGSTOP');
        kill(pids);
      },
      holdSeconds: NO_CAPACITY_S,
      heal: () => void signal(control, 'SIGCONT'),
    };
  },
};

/** As a cloud or Kubernetes ends a node without asking Rankflow: Ray drains it for half a minute, then it aborts. */
export const drainNode: Fault = {
  name: 'drain-node',
  lasts: true,
  title: 'SIGTERM of a worker node',
  phases: ['generate', 'deploy'],
  backends: ['simulated', 'vllm'],
  scope: 'cluster',
  bound: { simulated: NODE.simulated + RAY_DRAINS_S, vllm: NODE.vllm + RAY_DRAINS_S },
  aim: async (target) => {
    const { trial } = target;
    const node = await aWorker(target);
    const leader = need(trial.stack.nodeLeader(trial.cluster, node), 'the leader of the node');
    return {
      what: `${node} (pid ${leader})`,
      engines: enginesAmong(processesOfNode(trial, node)),
      strike: () => void signal(leader, 'SIGTERM'),
    };
  },
};

/**
 * A spot machine that is taken away. The notice is a file for each node, whose presence its sentinel sees; it holds
 * the seconds that are left.
 */
const preempt = (seconds: number): Fault => ({
  name: `preempt-${seconds}`,
  title: `notice of preemption, and ${seconds} s later SIGKILL of everything on the node`,
  phases: ['generate'],
  backends: ['simulated', 'vllm'],
  scope: 'cluster',
  bound: { simulated: NODE.simulated + seconds, vllm: NODE.vllm + seconds },
  aim: async (target) => {
    const { trial } = target;
    const node = await aWorker(target);
    const pids = processesOfNode(trial, node);
    return {
      what: `${node}, ${seconds} s ahead`,
      engines: enginesAmong(pids),
      strike: () => {
        const file = trial.stack.home.file('clusters', trial.cluster, `${node}.preempted`);
        writeFileSync(file, JSON.stringify({ deadline: seconds }));
      },
      holdSeconds: seconds,
      heal: () => kill(processesOfNode(trial, node)),
    };
  },
});

export const preempt120 = preempt(120);
export const preempt30 = preempt(30);
export const preempt0 = preempt(0);
