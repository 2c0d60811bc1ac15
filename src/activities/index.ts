import { Context } from '@temporalio/activity';

import type { ControlActivities } from '../contracts/activities.js';
import { clusterStatus, ensureCluster, ensureFleet, stopCluster, stopFleet } from './entities.js';
import { databaseId } from './database.js';
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

/** What the control worker serves. */
export const controlActivities: ControlActivities = {
  observeCluster,
  observeFleet: async (input) => observeFleet(input, clusterStatus),
  startLocalNode: async (input) => {
    const database = await databaseId(Context.current().client);
    const pause = async (ms: number): Promise<void> => {
      const context = Context.current();
      context.heartbeat();
      await context.sleep(ms);
    };
    await startLocalNode(input, pause, database);
  },
  endLostCluster: async ({ name }) => ({
    ended: await endLostCluster(name, await databaseId(Context.current().client)),
  }),
  endLocalNode,
  removeLocalCluster,
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
