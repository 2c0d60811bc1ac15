import type { Phase } from '../phases.js';
import type { Backend } from '../workload.js';

/**
 * Bounds of recovery, in seconds, with reasons. They are what a user may count on, on two cores shared with
 * everything else, and far above what is usual: the report says what is usual.
 */
const HEARTBEAT = 60; // A batch of an engine that is gone is given to another after this.
const LOOK = 30; // A fleet or cluster that is well looks at itself this often.
const CANARY = 60; // A healthy engine is asked for a token this often.
const GRACE = 20; // A worker that is to end has this long.

/** Time for an engine to be placed, loaded and asked for a token, on a busy machine. */
const LOAD: Readonly<Record<Backend, number>> = { simulated: 45, vllm: 240 };
/** Time for nodes to come up. */
const NODES = 90;

/** What a phase takes besides, from its beginning, and what a worker that was killed in it makes wait. */
const PHASE: Readonly<Record<Phase, (load: number) => number>> = {
  'bring-up': (load) => 2 * NODES + load,
  plan: () => HEARTBEAT,
  deploy: (load) => HEARTBEAT + load,
  generate: () => 0,
  commit: () => 0,
  finalize: () => HEARTBEAT,
  teardown: () => HEARTBEAT,
};

/** Seconds within which a run has to have recovered from a fault in a phase. */
export const boundOf = (bound: Bound, phase: Phase, backend: Backend): number =>
  bound[backend] + PHASE[phase](LOAD[backend]);

/** By backend, as real engines take a minute or two to load. */
export type Bound = Readonly<Record<Backend, number>>;

const both = (seconds: (load: number) => number): Bound => ({
  simulated: seconds(LOAD.simulated),
  vllm: seconds(LOAD.vllm),
});

/** A process of the stack: half a second, and the retries of what it was doing. */
export const PROCESS = both(() => 45);
/** The same after the grace in which it finishes what it is at. */
export const DRAINED = both(() => 45 + GRACE);
/** The batch waits for its heartbeat, the fleet for its next look, then the engine loads. */
export const ENGINE = both((load) => HEARTBEAT + LOOK + load);
/** Two in a row. */
export const TWICE = both((load) => 2 * (HEARTBEAT + LOOK + load));
/** Five in a row find the one row that kills engines. */
export const DEATHS = both((load) => 5 * (HEARTBEAT + load));
/** A hung engine is found by two canaries of two minutes at most. */
export const HUNG = both((load) => CANARY + 2 * 120 + HEARTBEAT + load);
/** The cluster looks, starts nodes, and engines load on them. */
export const NODE = both((load) => LOOK + HEARTBEAT + NODES + load);
/** The head first, then the nodes, then the engines. */
export const CLUSTER = both((load) => LOOK + HEARTBEAT + 2 * NODES + load + 60);
/** What is held back for a while: that while, and the retry after it. */
export const heldBack = (seconds: number): Bound => both(() => seconds + HEARTBEAT + 60);
