import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { RunSnapshot } from '../../src/client/snapshot.js';
import { paths } from '../../src/setup/paths.js';
import { DataFolder, readLines } from '../e2e/rankflow.js';
import { attached } from './attach.js';
import { SIMULATED } from './engines.js';
import { ProductionServer, missing } from './server.js';

const TIMEOUT_MS = 2_400_000;
const FLEET = 'production';
const REQUESTS = path.join(paths.packageRoot, 'examples/requests.jsonl');
const lacks = await missing();

/** How long the database is away. */
const AWAY_MS = 15_000;

/**
 * `npm run test:production`: Temporal's own server on PostgreSQL instead of the dev server, as `docker-compose.yml`
 * runs it. Needs Go, which builds it (minutes, once), and Debian's PostgreSQL.
 */
describe.skipIf(lacks.length > 0)('on a server as in production', { timeout: TIMEOUT_MS }, () => {
  let server: ProductionServer | undefined;
  let folder: DataFolder;

  beforeAll(async () => {
    server = await ProductionServer.start();
    folder = new DataFolder({ TEMPORAL_ADDRESS: server.address });
  }, TIMEOUT_MS);
  afterAll(async () => {
    if (server === undefined) return;
    await folder.remove(FLEET);
    server.stop();
  }, TIMEOUT_MS);

  const run = (input: string, out: string, ...more: string[]) =>
    folder.rankflow(
      [
        ...['run', input, '--model', 'SmolLM2-135M-Instruct', '--dtype', 'bfloat16', '--keep'],
        ...['--max-model-len', '1024', '--engines', '2', '--nodes', '2', '--fleet', FLEET],
        ...['--ranks', '4', '--batch-rows', '10', '--out', out, '--json', ...more, ...SIMULATED],
      ],
      TIMEOUT_MS,
    );
  const idsOf = (file: string) =>
    (readLines(file) as { custom_id: string }[]).map((line) => line.custom_id);

  it('every request is answered once, in input order', async () => {
    const out = folder.file('out.jsonl');
    const start = () => run(REQUESTS, out);
    const { exitCode, stderr } = await attached(await start(), start);
    expect(exitCode, `${stderr}\n${server?.log()}`).toBe(0);
    expect(idsOf(out)).toEqual(idsOf(REQUESTS));
  });

  it('and so it is when the database is killed in the middle of a run and comes back', async () => {
    const input = folder.file('twice.jsonl');
    const lines = readFileSync(REQUESTS, 'utf8');
    writeFileSync(input, lines + lines.replaceAll('"custom_id": "', '"custom_id": "again-'));
    const out = folder.file('twice.out.jsonl');
    const start = () => run(input, out, '--max-tokens', '32');
    const running = start();
    let doneWhenKilled: number | undefined;
    for await (const line of running) {
      const event = JSON.parse(line) as { event: string } & RunSnapshot;
      if (doneWhenKilled !== undefined || event.event !== 'progress' || event.doneRows < 50) {
        continue;
      }
      doneWhenKilled = event.doneRows;
      server?.killDatabase();
      await sleep(AWAY_MS);
      await server?.startDatabase();
    }
    const { exitCode, stderr } = await attached(await running, start);
    expect(exitCode, `${stderr}\n${server?.log()}`).toBe(0);
    expect(doneWhenKilled).toBeLessThan(idsOf(input).length / 2);
    expect(idsOf(out)).toEqual(idsOf(input));
    expect(new Set(idsOf(out)).size).toBe(idsOf(input).length);
  });
});
