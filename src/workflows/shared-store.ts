import {
  ActivityFailure,
  isCancellation,
  log,
  patched,
  proxyActivities,
} from '@temporalio/workflow';

import type { PythonActivities } from '../contracts/activities.js';
import type { ClusterSpec } from '../contracts/cluster.js';
import { PYTHON_QUEUE } from '../contracts/names.js';
import type { CheckStoreSharedInput } from '../contracts/run.js';
import { problemOf } from './failures.js';
import { A_FEW_TRIES } from './options.js';

const python = proxyActivities<Pick<PythonActivities, 'checkStoreShared'>>({
  taskQueue: PYTHON_QUEUE,
  // Three rounds of a minute at most, in which each node is asked.
  startToCloseTimeout: '10 minutes',
  // It heartbeats every few seconds while its child process works.
  heartbeatTimeout: '1 minute',
  // A store that is not shared is final; that nobody can look is no reason not to go on.
  retry: A_FEW_TRIES,
});

/**
 * Fails with `StoreNotShared` where nodes are other hosts that see another folder under the store's path. Where that
 * cannot be looked at, engines find out with their first batch.
 */
export async function checkStoreShared(
  { nodes }: ClusterSpec,
  input: CheckStoreSharedInput,
): Promise<void> {
  // The nodes of a local cluster are this machine.
  if (nodes.provider === 'local' || !patched('store-shared')) return;
  try {
    await python.checkStoreShared.executeWithOptions(
      { summary: 'Look whether the nodes share the store' },
      [input],
    );
  } catch (error) {
    if (!(error instanceof ActivityFailure) || isCancellation(error)) throw error;
    const problem = problemOf(error);
    if (problem.type === 'StoreNotShared' || problem.type === 'PathRefused') throw error;
    log.warn('could not look whether the nodes share the store', { ...problem });
  }
}
