import { Context } from '@temporalio/activity';

import type { ControlActivities } from '../contracts/activities.js';
import type { JobActivities } from '../contracts/job.js';
import { clusterStatus, ensureCluster, ensureFleet, stopCluster, stopFleet } from './entities.js';
import { databaseId } from './database.js';
import { jobActivities } from './jobs/index.js';
import {
  endLocalNode,
  endLostCluster,
  removeLocalCluster,
  startLocalNode,
} from './local-cluster.js';
import { runNotifyCommand, sendWebhook } from './notify.js';
import {
  awaitRun,
  findInput,
  planOccurrence,
  prepareScheduledRun,
  pruneScheduled,
  publishResults,
} from './scheduled.js';
import { observeCluster, observeFleet } from './observe.js';
import { checkNodes, drainNode, endNode, removeNodes, startNode } from './ssh-cluster.js';

/** Waits in an activity: heartbeats, and ends with the activity's cancellation. */
const pause = async (ms: number): Promise<void> => {
  const context = Context.current();
  context.heartbeat();
  await context.sleep(ms);
};

/** Well within the 30 s after which a start is thought to be lost. */
const HEARTBEAT_MS = 5_000;

/** What the control worker serves. */
export const controlActivities: ControlActivities & JobActivities = {
  ...jobActivities,
  observeCluster,
  observeFleet: async (input) => observeFleet(input, clusterStatus),
  startLocalNode: async (input) => {
    const database = await databaseId(Context.current().client);
    await startLocalNode(input, pause, database);
  },
  endLostCluster: async ({ name }) => ({
    ended: await endLostCluster(name, await databaseId(Context.current().client)),
  }),
  endLocalNode,
  removeLocalCluster,
  checkNodes,
  startNode: async (input) => {
    const context = Context.current();
    // Steps on a host may take long and say nothing.
    const timer = setInterval(() => context.heartbeat(), HEARTBEAT_MS);
    try {
      await startNode(input, pause, context.cancellationSignal);
    } finally {
      clearInterval(timer);
    }
  },
  endNode,
  removeNodes,
  drainNode,
  ensureCluster,
  ensureFleet,
  stopCluster,
  stopFleet,
  planOccurrence,
  findInput,
  prepareScheduledRun,
  awaitRun,
  publishResults,
  pruneScheduled,
  sendWebhook,
  runNotifyCommand,
};
