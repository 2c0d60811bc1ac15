import { appendFileSync } from 'node:fs';

import { coreOf, type Engine, enginesOf, groupOf, openAttempts } from '../lab/engines.js';
import { KernelMemoryLimit } from '../lab/memory.js';
import { poll, signal, sleep } from '../lab/processes.js';
import type { Trial } from '../lab/trial.js';
import { FolderReader } from '../store/reader.js';
import { ENGINE, HUNG, TWICE, heldBack } from './bounds.js';
import { type Fault, NotPossible, type Strike, type Target, need } from './fault.js';

/** Longer than the heartbeat time-out of a batch (60 s): another engine has been given it by then. */
const BEYOND_HEARTBEAT_S = 75;
/** An actor imports vLLM before it starts EngineCore (seconds). */
const CORE_COMES_S = 90;

/** An engine is there again after this: those of a fleet that others hit too may all be starting. */
const ENGINE_BACK_S = 60;

const describe = ({ slot, pid }: Engine): string => `engine ${slot} (pid ${pid})`;

/** One engine that works, or the one that is held in a commit. */
async function anEngine({ trial, random, held }: Target): Promise<Engine> {
  if (held !== undefined) return held.engine;
  const there = async (): Promise<Engine[] | undefined> => {
    const found = enginesOf(await trial.stack.fleetStatus(trial.fleet));
    return found.length > 0 || trial.ended ? found : undefined;
  };
  const engines = (await poll(there, ENGINE_BACK_S)) ?? [];
  const busy = engines.filter((engine) => openAttempts(engine, trial.view).length > 0);
  const choice = busy.length > 0 ? busy : engines;
  return need(choice.length === 0 ? undefined : random.pick(choice), 'an engine');
}

const stop = (engine: Engine): void => {
  for (const { pid } of groupOf(engine)) signal(pid, 'SIGSTOP');
};
const wake = (engine: Engine): void => {
  for (const { pid } of groupOf(engine)) signal(pid, 'SIGCONT');
};

export const killEngine: Fault = {
  name: 'kill-engine',
  title: 'SIGKILL of an engine actor',
  phases: ['generate', 'commit', 'deploy'],
  backends: ['simulated', 'vllm'],
  scope: 'fleet',
  bound: ENGINE,
  aim: async (target) => {
    const engine = await anEngine(target);
    return {
      what: describe(engine),
      engines: [engine],
      strike: () => void signal(engine.pid, 'SIGKILL'),
    };
  },
};

export const killCore: Fault = {
  name: 'kill-engine-core',
  title: 'SIGKILL of a vLLM EngineCore',
  phases: ['generate', 'commit', 'deploy'],
  backends: ['vllm'],
  scope: 'fleet',
  bound: ENGINE,
  aim: async (target) => {
    const engine = await anEngine(target);
    // While it is deployed its actor comes first.
    const core = need(await poll(() => coreOf(engine), CORE_COMES_S), 'EngineCore');
    return {
      what: `EngineCore (pid ${core.pid}) of ${describe(engine)}`,
      engines: [engine],
      replaced: [engine],
      strike: () => void signal(core.pid, 'SIGKILL'),
    };
  },
};

/** At the end of a commit that somebody else made meanwhile, it wants to commit as well. */
export const zombie: Fault = {
  name: 'zombie',
  title: 'SIGSTOP of an engine beyond its heartbeat, then SIGCONT',
  phases: ['commit', 'generate'],
  backends: ['simulated', 'vllm'],
  scope: 'run',
  bound: heldBack(BEYOND_HEARTBEAT_S),
  aim: async (target): Promise<Strike> => {
    const engine = await anEngine(target);
    const { held, trial } = target;
    const asleep = {
      what: held === undefined ? describe(engine) : `${describe(engine)}, batch ${held.batch}`,
      engines: [engine],
      strike: () => stop(engine),
      keepsStill: true,
    };
    if (held === undefined) {
      return { ...asleep, holdSeconds: BEYOND_HEARTBEAT_S, heal: () => wake(engine) };
    }
    let missed: string | undefined;
    return {
      ...asleep,
      get missed() {
        return missed;
      },
      heal: async () => {
        const committed = (): true | undefined => trial.view.commits.has(held.batch) || undefined;
        const other = await poll(committed, 3 * BEYOND_HEARTBEAT_S);
        if (other === undefined) missed = 'nobody else made its commit while it was asleep';
        wake(engine);
      },
    };
  },
};

/** It answers Ray and Temporal (real ones), or nobody (simulated): either way it makes no step any more. */
export const hang: Fault = {
  name: 'hang',
  title:
    'an engine that hangs: SIGSTOP of EngineCore, of the actor where there is no EngineCore; for good',
  phases: ['generate'],
  backends: ['simulated', 'vllm'],
  scope: 'fleet',
  bound: HUNG,
  aim: async (target) => {
    const engine = await anEngine(target);
    const core = coreOf(engine);
    return {
      what: core === undefined ? describe(engine) : `EngineCore of ${describe(engine)}`,
      engines: [engine],
      replaced: [engine],
      strike: () => void signal(core?.pid ?? engine.pid, 'SIGSTOP'),
    };
  },
};

/** By the simulated engine's own fault point: the process lives, takes batches and canaries, and answers none. */
export const hangSilently: Fault = {
  name: 'hang-silently',
  lasts: true,
  title: 'engines that are alive and silent: they answer nothing any more after some rows',
  phases: ['generate'],
  backends: ['simulated'],
  scope: 'fleet',
  bound: HUNG,
  aim: async ({ trial }) => {
    const engines = enginesOf(await trial.stack.fleetStatus(trial.fleet));
    need(engines[0], 'an engine');
    return {
      what: engines.map(describe).join(', '),
      engines,
      strike: () => {
        // They were told at their start.
      },
    };
  },
};

export const outOfMemory: Fault = {
  name: 'out-of-memory',
  title: "the kernel's OOM killer ends an engine: it is moved to a memory cgroup without room",
  phases: ['generate', 'commit'],
  backends: ['simulated', 'vllm'],
  scope: 'fleet',
  bound: ENGINE,
  aim: async (target) => {
    const engine = await anEngine(target);
    // Of a real engine the largest process, which is where memory runs out.
    const victim = coreOf(engine)?.pid ?? engine.pid;
    const limit = KernelMemoryLimit.create();
    let byKernel = true;
    return {
      what: `pid ${victim} of ${describe(engine)}`,
      get missed() {
        return byKernel ? undefined : 'it asked for no memory, and was ended by SIGKILL';
      },
      engines: [engine],
      replaced: [engine],
      strike: async () => {
        byKernel = await limit.kill(victim);
      },
    };
  },
};

export const secondLoss: Fault = {
  name: 'second-loss',
  lasts: true,
  title: 'a second engine is killed, and the first once more, while it recovers',
  phases: ['generate', 'deploy'],
  backends: ['simulated', 'vllm'],
  scope: 'fleet',
  bound: TWICE,
  aim: async (target) => {
    const { trial, random } = target;
    const first = await anEngine(target);
    const all = enginesOf(await trial.stack.fleetStatus(trial.fleet));
    const pause = random.int(1, 6);
    return {
      what: `${describe(first)}, all of the fleet ${pause} s later`,
      engines: all,
      strike: async () => {
        signal(first.pid, 'SIGKILL');
        await sleep(pause * 1000);
        for (const pid of await actorsOf(trial)) signal(pid, 'SIGKILL');
      },
    };
  },
};

/** Actors of a fleet that run now, also those that its workflow has not seen yet. */
async function actorsOf(trial: Trial): Promise<number[]> {
  return enginesOf(await trial.stack.fleetStatus(trial.fleet)).map(({ pid }) => pid);
}

export const tornWrite: Fault = {
  name: 'torn-write',
  title: 'SIGKILL of an engine in the middle of a write: half a line at the end of its attempt',
  phases: ['generate'],
  backends: ['simulated', 'vllm'],
  scope: 'fleet',
  bound: ENGINE,
  aim: async (target) => {
    const engine = await anEngine(target);
    const { view } = target.trial;
    if (!(view.reader instanceof FolderReader)) throw new NotPossible('a bucket has no torn files');
    const file = `${view.reader.root}/${view.key('attempts')}`;
    const id = need(openAttempts(engine, view)[0], 'an attempt file');
    return {
      what: `${describe(engine)}, attempt ${id}`,
      engines: [engine],
      strike: async () => {
        signal(engine.pid, 'SIGSTOP');
        await view.poll();
        // What a kill leaves that comes between two pages of one write: the next row, up to somewhere.
        const line =
          '{"row":0,"promptTokens":11,"completionTokens":8,"failed":false,"output":{"id":"batch_';
        const length = target.random.int(1, line.length);
        appendFileSync(`${file}/${id}.jsonl`, line.slice(0, length));
        signal(engine.pid, 'SIGKILL');
      },
    };
  },
};
