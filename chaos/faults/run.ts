import { PROCESS } from './bounds.js';
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
