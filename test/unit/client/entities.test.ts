import type { Client } from '@temporalio/client';
import { expect, it } from 'vitest';

import { queryWorkflow } from '../../../src/client/entities.js';
import { QUERY_MS, STICKY_MS } from '../../../src/temporal/sticky.js';

const late = Object.assign(new Error('late'), { code: 4, details: '', metadata: {} });

/** A server that has no answer to so many queries, and then one. */
function server(silent: number) {
  const waits: number[] = [];
  let wait = 0;
  const handle = {
    query: async () => {
      waits.push(wait);
      if (waits.length <= silent) throw late;
      return 'well';
    },
  };
  const client = {
    workflow: { getHandle: () => handle },
    withDeadline: async (deadline: number, ask: () => Promise<unknown>) => {
      wait = deadline - Date.now();
      return ask();
    },
  };
  return { client: client as unknown as Client, waits };
}

it('no query waits until Temporal gives it to another worker than the one it is meant for', async () => {
  const { client, waits } = server(3);
  expect(await queryWorkflow(client, 'fleet/main')).toBe('well');
  expect(waits).toHaveLength(4);
  expect(Math.max(...waits)).toBeLessThanOrEqual(QUERY_MS);
  expect(QUERY_MS).toBeLessThan(STICKY_MS / 2);
});

it('a workflow is asked until its worker has been away for long', async () => {
  const { client, waits } = server(100);
  await expect(queryWorkflow(client, 'fleet/main')).rejects.toBe(late);
  expect(waits.length * QUERY_MS).toBeGreaterThan(STICKY_MS + QUERY_MS);
});

it('who cannot wait asks once', async () => {
  const { client, waits } = server(1);
  await expect(queryWorkflow(client, 'fleet/main', 'status', 1)).rejects.toBe(late);
  expect(waits).toHaveLength(1);
});
