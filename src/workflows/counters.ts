import { metricMeter } from '@temporalio/workflow';

import type { RunState } from '../contracts/run.js';

/** Counted once, not again in a replay, and at the address of the worker that was there. Nothing is in the history. */
export function countRun(state: RunState): void {
  metricMeter.createCounter('rankflow_runs', undefined, 'Runs that ended.').add(1, { state });
}

/** A node of a cluster was told to go: it is preempted or drained. */
export function countPreemption(cluster: string): void {
  metricMeter
    .createCounter('rankflow_preemptions', undefined, 'Nodes that had notice to go.')
    .add(1, { cluster });
}
