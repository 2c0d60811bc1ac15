import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { FleetStatus } from '../../../src/contracts/workflows.js';
import { engineActorName } from '../../../src/contracts/names.js';
import { engineLines, engineLogs } from '../../../src/logs/engines.js';
import { FileLog } from '../../../src/logs/files.js';

const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-logs-'));
const SPEC_HASH = 'a'.repeat(64);

/** What Ray's dashboard is asked. */
const asked: URL[] = [];
let ray: Server;
let stream: ServerResponse | undefined;
let tokenFile: string;

const actor = (id: string, slot: number, state: string) => ({
  ...{ actor_id: id, state, num_restarts: 0, node_id: 'n', pid: 1, death_cause: null },
  name: engineActorName('small', SPEC_HASH, slot),
});

beforeAll(async () => {
  tokenFile = path.join(folder, 'token');
  writeFileSync(tokenFile, 'secret\n');
  ray = createServer((request, response) => {
    const url = new URL(request.url ?? '', 'http://ray');
    if (request.headers.authorization !== 'Bearer secret') return response.writeHead(401).end();
    asked.push(url);
    if (url.pathname === '/api/v0/actors') {
      const result = [actor('old', 0, 'DEAD'), actor('new', 0, 'ALIVE'), actor('two', 1, 'DEAD')];
      const body = { result: true, msg: '', data: { result: { result } } };
      return response.end(JSON.stringify(body));
    }
    if (url.searchParams.get('actor_id') === 'gone') return response.writeHead(500).end('no log');
    if (url.pathname === '/api/v0/logs/file') return response.end('one\ntwo ü\nthree');
    response.write('first\nsec');
    stream = response;
    return undefined;
  });
  await new Promise<void>((resolve) => ray.listen(0, '127.0.0.1', () => resolve()));
});
afterAll(() => {
  ray.closeAllConnections();
  ray.close();
  rmSync(folder, { recursive: true });
});

const cluster = () => ({
  name: 'lab',
  address: '127.0.0.1:6379',
  dashboardUrl: `http://127.0.0.1:${(ray.address() as AddressInfo).port}`,
  tokenFile,
});

const all = async (lines: AsyncIterable<string>): Promise<string[]> => {
  const found: string[] = [];
  for await (const line of lines) found.push(line);
  return found;
};

describe('the log of an engine', () => {
  const slotOf = (slot: number) => ({ slot, state: 'ready' as const, since: '', restarts: 0 });
  const fleet = {
    ...{ name: 'small', specHash: SPEC_HASH, slots: [slotOf(0), slotOf(1), slotOf(2)] },
  } as unknown as FleetStatus;

  it('is that of the process that is there, or was there last', async () => {
    expect(await engineLogs(cluster(), fleet)).toEqual([
      { source: 'small/slot-0', actorId: 'new' },
      { source: 'small/slot-1', actorId: 'two' },
    ]);
    expect(await engineLogs(cluster(), fleet, 1)).toEqual([
      { source: 'small/slot-1', actorId: 'two' },
    ]);
  });

  it('is read where the engine is, with the last lines that were asked for', async () => {
    const engine = { source: 'small/slot-0', actorId: 'new' };
    expect(await all(engineLines(cluster(), engine, 20))).toEqual(['one', 'two ü', 'three']);
    const { searchParams } = asked.at(-1) ?? new URL('http://none');
    expect(Object.fromEntries(searchParams)).toEqual({
      ...{ actor_id: 'new', suffix: 'out', lines: '20' },
    });
  });

  it('can be followed until somebody has seen enough', async () => {
    const controller = new AbortController();
    const engine = { source: 'small/slot-0', actorId: 'new' };
    const found: string[] = [];
    for await (const line of engineLines(cluster(), engine, 20, controller.signal)) {
      found.push(line);
      if (found.length === 1) stream?.write('ond\n');
      if (found.length === 2) controller.abort();
    }
    expect(found).toEqual(['first', 'second']);
  });

  it('that Ray has not is told by the name of the engine', async () => {
    const engine = { source: 'small/slot-3', actorId: 'gone' };
    await expect(all(engineLines(cluster(), engine, 20))).rejects.toThrow(
      'no log of small/slot-3: Ray answers 500',
    );
  });
});

describe('a file that grows', () => {
  it('gives each line once, when it is complete, also after it was begun anew', async () => {
    const file = path.join(folder, 'worker.log');
    const log = new FileLog(file);
    expect(await all(log.past())).toEqual([]);
    writeFileSync(file, 'one\ntw');
    expect(await all(log.past())).toEqual(['one']);
    appendFileSync(file, 'o\n');
    expect(await all(log.past())).toEqual(['two']);
    writeFileSync(file, 'new\n');
    expect(await all(log.past())).toEqual(['new']);
  });

  it('can be followed', async () => {
    const file = path.join(folder, 'followed.log');
    const controller = new AbortController();
    writeFileSync(file, 'one\n');
    const found: string[] = [];
    for await (const line of new FileLog(file).coming(controller.signal)) {
      found.push(line);
      if (line === 'one') appendFileSync(file, 'two\n');
      else controller.abort();
    }
    expect(found).toEqual(['one', 'two']);
  });
});
