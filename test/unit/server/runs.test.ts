import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import { afterAll, expect, test } from 'vitest';

import { ClientError } from '../../../src/client/errors.js';
import type { PreparedRun } from '../../../src/client/inference.js';
import type { StartedRun } from '../../../src/client/runs.js';
import { NotNow, TemporalRuns } from '../../../src/server/runs.js';
import { line, MODEL } from '../../support/api-server.js';

const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-runs-'));
afterAll(() => rmSync(folder, { recursive: true }));
const input = path.join(folder, 'input.jsonl');
writeFileSync(input, `${line('a')}\n`);

const started: PreparedRun[] = [];
/** There is no run yet. */
const client = {
  workflow: {
    getHandle: () => ({
      describe: async () => {
        throw new WorkflowNotFoundError('none', 'batch_1', undefined);
      },
    }),
  },
} as unknown as Client;
const options = { model: { model: MODEL, backend: 'simulated' }, store: folder };
const runs = new TemporalRuns(client, new Map([[MODEL, options]]), async (_, run) => {
  started.push(run);
  return {} as StartedRun;
});
const seconds = (): number => Math.floor(Date.now() / 1000);

test('the run of a batch expires when the batch does', async () => {
  const expiresAt = seconds() + 3_600;
  await runs.start('batch_1', input, MODEL, expiresAt);
  expect(started.map(({ inference }) => [inference.run.runId, inference.deadline])).toEqual([
    ['batch_1', new Date(expiresAt * 1000).toISOString()],
  ]);
});

test('a batch whose time ran out while its run was prepared is looked at again, and has not failed', async () => {
  await expect(runs.start('batch_2', input, MODEL, seconds() - 1)).rejects.toThrow(NotNow);
  await expect(runs.start('batch_2', input, 'other', seconds() + 60)).rejects.not.toThrow(NotNow);
  expect(started).toHaveLength(1);
});

test('a batch waits for a cluster that is not up', async () => {
  const away = new TemporalRuns(client, new Map([[MODEL, options]]), async (_, _run, asked) => {
    expect(asked).toBe(options);
    throw new ClientError('ClusterMissing', 'There is no cluster lab up.');
  });
  const start = away.start('batch_3', input, MODEL, seconds() + 3_600);
  await expect(start).rejects.toThrow(new NotNow('There is no cluster lab up.'));
});
