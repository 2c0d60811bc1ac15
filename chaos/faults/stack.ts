import { signal } from '../lab/processes.js';
import type { StackProcess } from '../lab/stack.js';
import { DRAINED, PROCESS } from './bounds.js';
import { type Fault, NotPossible, type Strike, type Target, need } from './fault.js';

const EVERYWHERE = [
  'generate',
  'plan',
  'deploy',
  'commit',
  'finalize',
  'teardown',
  'bring-up',
] as const;

/** A process that ends, and that the supervisor starts again. */
const endOf = (
  how: 'SIGKILL' | 'SIGTERM',
  which: StackProcess,
): Pick<Fault, 'phases' | 'backends' | 'scope' | 'aim'> => ({
  phases: EVERYWHERE,
  backends: ['simulated', 'vllm'],
  scope: 'stack',
  aim: async ({ trial }) => {
    const pid = need(trial.stack.process(which), which);
    return { what: `${which} (pid ${pid})`, strike: () => void signal(pid, how) };
  },
});

const killProcess = (name: string, which: StackProcess, title: string): Fault => ({
  ...{ name, title, bound: PROCESS },
  ...endOf('SIGKILL', which),
});

/** As an upgrade or a shutdown ends it: it finishes what it is at, or gives it back. */
const drainProcess = (name: string, which: StackProcess, title: string): Fault => ({
  ...{ name, title, bound: DRAINED },
  ...endOf('SIGTERM', which),
});

export const killControlWorker = killProcess(
  'kill-control-worker',
  'control-worker',
  'SIGKILL of the TypeScript control worker',
);
export const killPythonWorker = killProcess(
  'kill-python-worker',
  'python-worker',
  'SIGKILL of the Python control worker',
);
export const drainControlWorker = drainProcess(
  'drain-control-worker',
  'control-worker',
  'SIGTERM of the TypeScript control worker: it drains, and another one is started',
);
export const drainPythonWorker = drainProcess(
  'drain-python-worker',
  'python-worker',
  'SIGTERM of the Python control worker: it drains, and another one is started',
);
export const killTemporal = killProcess(
  'kill-temporal',
  'temporal',
  'SIGKILL of the Temporal server; it starts again on its file',
);

/** The children that plan, deploy and finalize: their worker lives on. */
export const killChild: Fault = {
  name: 'kill-child',
  title: 'SIGKILL of the child process that plans, deploys or finalizes',
  phases: ['plan', 'finalize', 'deploy'],
  backends: ['simulated', 'vllm'],
  scope: 'run',
  bound: PROCESS,
  aim: async ({ trial, random }) => {
    const children = trial.stack.children();
    const child = need(
      children.length === 0 ? undefined : random.pick(children),
      'a child process',
    );
    const task = child.command.split(' ').slice(-2).join(' ');
    return { what: `${task} (pid ${child.pid})`, strike: () => void signal(child.pid, 'SIGKILL') };
  },
};

export const killCli: Fault = {
  name: 'kill-cli',
  title: 'SIGKILL of the command line; the same command attaches again',
  phases: ['generate', 'bring-up', 'plan', 'deploy', 'commit', 'finalize', 'teardown'],
  backends: ['simulated', 'vllm'],
  scope: 'run',
  bound: PROCESS,
  aim: async ({ trial }): Promise<Strike> => {
    const pid = need(trial.command.pid, 'the command line');
    return {
      what: `rankflow run (pid ${pid})`,
      strike: () => void signal(pid, 'SIGKILL'),
      holdSeconds: 2,
      heal: () => void trial.start(),
    };
  },
};

export const killSupervisor: Fault = {
  name: 'kill-supervisor',
  title: 'SIGKILL of the supervisor, then `rankflow up`',
  phases: EVERYWHERE,
  backends: ['simulated', 'vllm'],
  scope: 'stack',
  bound: PROCESS,
  aim: async ({ trial, random }: Target): Promise<Strike> => {
    const pid = need(trial.stack.supervisor(), 'the supervisor');
    if (trial.stack.isStarting) throw new NotPossible('the one before is being mended');
    return {
      what: `supervisor (pid ${pid})`,
      strike: () => void signal(pid, 'SIGKILL'),
      holdSeconds: random.int(1, 4),
      heal: async () => trial.stack.up(),
    };
  },
};
