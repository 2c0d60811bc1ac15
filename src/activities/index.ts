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
import { observeCluster, observeFleet } from './observe.js';

/** What the control worker serves. */
export const controlActivities: ControlActivities & JobActivities = {
  ...jobActivities,
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
};
