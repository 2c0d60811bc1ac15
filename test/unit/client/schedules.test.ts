import type { Client } from '@temporalio/client';
import { expect, it } from 'vitest';

import { triggerSchedule } from '../../../src/client/schedules.js';

/** A server that takes a trigger and starts nothing while it is looked at. */
function slowServer(running: number): Client {
  const description = {
    action: { args: [{ runId: '{schedule}', timing: { timeZone: 'UTC' } }] },
    policies: { overlap: 'BUFFER_ALL', catchupWindow: 0, pauseOnFailure: false },
    state: { paused: false },
    info: {
      nextActionTimes: [],
      recentActions: [],
      runningActions: Array.from({ length: running }, () => ({})),
      numActionsTaken: 0,
      numActionsMissedCatchupWindow: 0,
      numActionsSkippedOverlap: 0,
    },
  };
  const handle = { describe: async () => description, trigger: async () => {} };
  return { schedule: { getHandle: () => handle } } as unknown as Client;
}

it.each([
  ['waits where a run goes on', 1, 'waiting'],
  ['is but asked for where none does', 0, 'asked'],
])('a start that a slow server has not made %s', async (_where, running, state) => {
  expect(await triggerSchedule(slowServer(running), 'nightly')).toEqual({ state });
});
