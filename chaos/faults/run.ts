import { DEATHS, PROCESS } from './bounds.js';
import type { Fault } from './fault.js';

export const cancel: Fault = {
  name: 'cancel',
  title: '`rankflow cancel`: what is done is kept, the rest become error lines',
  phases: ['generate', 'bring-up', 'plan', 'deploy', 'commit', 'finalize', 'teardown'],
  backends: ['simulated', 'vllm'],
  scope: 'run',
  bound: PROCESS,
  aim: async ({ trial }) => ({
    what: `run ${trial.runId}`,
    strike: async () => trial.cancel(),
  }),
};

/** What in a prompt makes it poisonous, for engines that are told so at their start. */
export const POISON = 'arsenic';

export const poison: Fault = {
  name: 'poison',
  lasts: true,
  title:
    'a prompt that kills its engine each time: it becomes one error line, and no other row does',
  phases: ['generate'],
  backends: ['simulated'],
  scope: 'run',
  bound: DEATHS,
  aim: async ({ trial }) => ({
    what: [...trial.workload.poisoned].join(', '),
    strike: () => {
      // It is in the input.
    },
  }),
};
