import { metricMeter } from '@temporalio/workflow';

import type { RunState } from '../contracts/run.js';

/** States that a run can end in. */
const ENDS = ['completed', 'failed', 'cancelled', 'expired'] as const satisfies RunState[];

// Counted once, not again in a replay, and at the address of the worker that was there. Nothing is in the history.
const counter = (name: string, description: string) =>
  metricMeter.createCounter(`rankflow_${name}`, undefined, description);
const runs = () => counter('runs', 'Runs that ended.');
const preemptions = () => counter('preemptions', 'Nodes that had notice to go.');

/** A run began. What has not happened yet is 0 and not absent, so that its rate is right from the first time. */
export function expectRun(): void {
  for (const state of ENDS) runs().add(0, { state });
}

export function countRun(state: RunState): void {
  runs().add(1, { state });
}

/** A cluster began: none of its nodes has had notice. */
export function expectPreemptions(cluster: string): void {
  preemptions().add(0, { cluster });
}

/** A node of a cluster was told to go: it is preempted or drained. */
export function countPreemption(cluster: string): void {
  preemptions().add(1, { cluster });
}
