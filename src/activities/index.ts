import { Context } from '@temporalio/activity';

import type { ControlActivities } from '../contracts/activities.js';
import { ensureCluster, ensureFleet, stopCluster, stopFleet } from './entities.js';
import { endLocalNode, removeLocalCluster, startLocalNode } from './local-cluster.js';
import { observeCluster, observeFleet } from './observe.js';

/** What the control worker serves. */
export const controlActivities: ControlActivities = {
  observeCluster,
  observeFleet,
  startLocalNode: async (input) =>
    startLocalNode(input, async (ms) => {
      const context = Context.current();
      context.heartbeat();
      await context.sleep(ms);
    }),
  endLocalNode,
  removeLocalCluster,
  ensureCluster,
  ensureFleet,
  stopCluster,
  stopFleet,
};
