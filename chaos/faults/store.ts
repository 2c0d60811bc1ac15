import type { LimitedFolder } from '../lab/room.js';
import { heldBack } from './bounds.js';
import type { Fault } from './fault.js';

/** Long enough for every engine to try to write, and to try again. */
const FULL_S = 25;

/** The store is full (ENOSPC) for a while. */
export const fullStore = (store: LimitedFolder): Fault => ({
  name: 'store-full',
  title: 'the store is full (ENOSPC) for a while',
  phases: ['generate', 'plan', 'finalize'],
  backends: ['simulated', 'vllm'],
  scope: 'run',
  bound: heldBack(FULL_S),
  aim: async () => ({
    what: `for ${FULL_S} s`,
    strike: () => store.fill(),
    holdSeconds: FULL_S,
    heal: () => store.free(),
  }),
});
