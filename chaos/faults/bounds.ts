import type { Backend } from '../workload.js';

/**
 * Bounds of recovery, in seconds, with reasons. They are what a user may count on, on two cores shared with
 * everything else, and far above what is usual: the report says what is usual.
 */
const HEARTBEAT = 60; // A batch of an engine that is gone is given to another after this.
const LOOK = 30; // A fleet or cluster that is well looks at itself this often.
const CANARY = 60; // A healthy engine is asked for a token this often.

/** Time for an engine to be placed, loaded and asked for a token, on a busy machine. */
const LOAD: Readonly<Record<Backend, number>> = { simulated: 45, vllm: 240 };
/** Time for nodes to come up. */
const NODES = 90;

const both = (seconds: (load: number) => number): Readonly<Record<Backend, number>> => ({
  simulated: seconds(LOAD.simulated),
  vllm: seconds(LOAD.vllm),
});

/** A process of the stack: half a second, and the retries of what it was doing. */
export const PROCESS = both(() => 45);
/** The batch waits for its heartbeat, the fleet for its next look, then the engine loads. */
export const ENGINE = both((load) => HEARTBEAT + LOOK + load);
/** Two in a row. */
export const TWICE = both((load) => 2 * (HEARTBEAT + LOOK + load));
/** A hung engine is found by two canaries of two minutes at most. */
export const HUNG = both((load) => CANARY + 2 * 120 + HEARTBEAT + load);
/** The cluster looks, starts nodes, and engines load on them. */
export const NODE = both((load) => LOOK + HEARTBEAT + NODES + load);
/** The head first, then the nodes, then the engines. */
export const CLUSTER = both((load) => LOOK + HEARTBEAT + 2 * NODES + load + 60);
/** What is held back for a while: that while, and the retry after it. */
export const heldBack = (seconds: number): Readonly<Record<Backend, number>> =>
  both(() => seconds + HEARTBEAT + 60);
