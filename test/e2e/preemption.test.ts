import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { listActors } from '../../src/activities/ray-state.js';
import type { RunSnapshot } from '../../src/client/snapshot.js';
import { Nodes } from './nodes.js';
import { DataFolder, parseLines, readLines, type ResultLine } from './rankflow.js';

/** Real nodes start in 15 s each, on a busy machine several times that. */
const TIMEOUT_MS = 600_000;
const FLEET = 'spot';
const ROWS = 1000;
/** Rows that an engine decodes side by side, and the most tokens of one. */
const SIDE_BY_SIDE = 16;
const MOST_TOKENS = 32;
const NOTICE_S = 15;

let folder: DataFolder;
let nodes: Nodes;

beforeAll(() => {
  folder = new DataFolder();
  nodes = new Nodes(folder, 'local', FLEET);
});
afterAll(async () => folder.remove(FLEET), TIMEOUT_MS);

/** Room for two engines on each of two nodes; a batch takes longer than the notice. */
const size = (): string[] => [
  ...['--backend', 'simulated', '--model', 'stand-in', '--fleet', FLEET, '--keep'],
  ...['--engines', '2', '--nodes', '2', '--ranks', '2', '--cpus-per-engine', '0.5'],
  ...['--max-num-seqs', String(SIDE_BY_SIDE), '--engine-arg', 'tokens_per_second=250'],
  ...['--engine-arg', `ledger=${folder.file('ledger')}`, '--batch-rows', '250'],
];

/** Tokens that the engines decoded, those of unfinished rows included. */
function decodedTokens(): number {
  const files = readdirSync(folder.file('ledger')).map((name) => path.join('ledger', name));
  const lines = files.flatMap((name) => parseLines(readFileSync(folder.file(name), 'utf8')));
  return (lines as { decoded?: number }[]).reduce((sum, { decoded = 0 }) => sum + decoded, 0);
}

test(
  'a node with notice gives its engine away in time, and a run hardly pays for anything twice',
  async () => {
    const input = folder.file('requests.jsonl');
    const rows = Array.from({ length: ROWS }, (_, row) => ({
      custom_id: `row-${row}`,
      method: 'POST',
      url: '/v1/chat/completions',
      body: { messages: [{ role: 'user', content: `question ${row}` }], max_tokens: MOST_TOKENS },
    }));
    writeFileSync(input, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    const out = folder.file('out.jsonl');
    const running = folder.rankflow(['run', input, ...size(), '--out', out, '--json'], TIMEOUT_MS);
    let taken: { node: string; nodeId: string; deadline: number } | undefined;
    for await (const line of running) {
      const event = JSON.parse(line) as { event: string } & RunSnapshot;
      if (event.event !== 'progress' || event.doneRows < 50) continue;
      if (taken === undefined) {
        const node = await nodes.ofEngine(1);
        const nodeId = (await nodes.fleet()).slots.find(({ slot }) => slot === 1)?.nodeId ?? '';
        nodes.giveNotice(node, NOTICE_S);
        taken = { node, nodeId, deadline: Date.now() + NOTICE_S * 1000 };
        await expect
          .poll(async () => (await nodes.fleet()).slots.map(({ slot, state }) => [slot, state]), {
            timeout: 10_000,
            interval: 500,
          })
          .toEqual(expect.arrayContaining([[1, 'draining']]));
        const noticed = (await nodes.status()).nodes.find(({ name }) => name === node);
        expect([noticed?.state, Date.parse(noticed?.deadline ?? '')]).toEqual([
          'draining',
          expect.closeTo(taken.deadline, -4),
        ]);
        void at(taken.deadline).then(() => nodes.kill(node));
      }
    }
    const { exitCode, stderr } = await running;
    expect(exitCode, stderr).toBe(0);
    expect(taken).toBeDefined();

    const answers = readLines(out) as ResultLine[];
    expect(answers.map((line) => line.custom_id)).toEqual(rows.map((row) => row.custom_id));
    const answered = answers.reduce(
      (sum, { response }) => sum + (response?.body.usage.completion_tokens ?? 0),
      0,
    );
    const twice = decodedTokens() - answered;
    console.log(`${twice} of ${answered} tokens were decoded twice`);
    expect(twice).toBeGreaterThanOrEqual(0);
    expect(twice).toBeLessThan((SIDE_BY_SIDE * MOST_TOKENS) / 4);

    // The engine that came in its place serves on, under another number.
    const engines = async (): Promise<unknown> =>
      (await nodes.fleet()).slots.map(({ slot, state }) => [slot, state]);
    await expect.poll(engines, { timeout: 120_000, interval: 2_000 }).toEqual([
      [0, 'ready'],
      [2, 'ready'],
    ]);
    const { slots } = await nodes.fleet();
    expect(slots.map(({ nodeId }) => nodeId)).not.toContain(taken?.nodeId);
    // And the machine comes back later.
    await expect
      .poll(async () => (await nodes.status()).state, { timeout: 180_000, interval: 2_000 })
      .toBe('ready');
    const again = (await nodes.status()).nodes.find(({ name }) => name === taken?.node);
    expect(again?.nodeId).not.toBe(taken?.nodeId);
  },
  TIMEOUT_MS,
);

test(
  'a node that somebody drains in Ray is left by all of its engines',
  async () => {
    const [first] = (await nodes.fleet()).slots;
    await nodes.drainInRay(first?.nodeId ?? '', 60);
    const engines = async () => (await nodes.fleet()).slots;
    await expect
      .poll(async () => (await engines()).map(({ problem }) => problem?.message), {
        timeout: 20_000,
        interval: 500,
      })
      .toContain('its node is taken away (ray gave notice)');
    await expect
      .poll(async () => (await engines()).map(({ state, nodeId }) => [state, nodeId]), {
        timeout: 120_000,
        interval: 2_000,
      })
      .toEqual(
        Array.from({ length: 2 }, () => [
          'ready',
          expect.not.stringContaining(first?.nodeId ?? ''),
        ]),
      );
  },
  TIMEOUT_MS,
);

test(
  'a cordoned node keeps its engines and gets no other, until it is uncordoned',
  async () => {
    const LONG = { timeout: 180_000, interval: 2_000 };
    const say = async (...args: string[]): Promise<string> => {
      const { exitCode, stderr } = await folder.rankflow(args, 120_000);
      return `${exitCode} ${stderr}`;
    };
    /** Engines that are ready, by the name of their node. */
    const engines = async (): Promise<string[]> => {
      const there = (await nodes.status()).nodes;
      const ready = (await nodes.fleet()).slots.filter(({ state }) => state === 'ready');
      return ready.map(({ nodeId }) => there.find((node) => node.nodeId === nodeId)?.name ?? '');
    };
    // The node that was drained comes back first.
    await expect.poll(async () => (await nodes.status()).state, LONG).toBe('ready');
    expect(await say('scale', FLEET, '1')).toMatch(/^0 /u);
    await expect.poll(async () => (await nodes.fleet()).slots.length, LONG).toBe(1);
    const [used = ''] = await engines();
    const other = used === 'worker-1' ? 'worker-2' : 'worker-1';

    // Ray would rather have taken the node that is empty.
    expect(await say('cluster', 'cordon', 'local', other)).toMatch(/^0 Cordoned: worker-\d\./u);
    expect(await say('scale', FLEET, '2')).toMatch(/^0 /u);
    await expect.poll(engines, LONG).toEqual([used, used]);
    const refused = await say('scale', FLEET, '3');
    expect(refused).toMatch(/^2 [^]*room for 2[^]*nothing new is placed on cordoned nodes/u);
    expect(refused).toContain(`rankflow cluster uncordon local ${other}`);

    expect(await say('cluster', 'uncordon', 'local', other)).toMatch(/^0 Uncordoned/u);
    expect(await say('scale', FLEET, '3')).toMatch(/^0 /u);
    await expect
      .poll(async () => (await engines()).toSorted(), LONG)
      .toEqual([used, used, other].toSorted());

    // Cordoned again the node keeps its engine; when that dies, Ray itself brings it back there, and it has to leave.
    expect(await say('cluster', 'cordon', 'local', other)).toMatch(/^0 /u);
    const there = (await nodes.status()).nodes.find(({ name }) => name === other);
    expect(there).toMatchObject({ state: 'alive', unschedulable: true });
    const slot = (await nodes.fleet()).slots.find(({ nodeId }) => nodeId === there?.nodeId);
    expect(slot?.state).toBe('ready');
    process.kill(Number(slot?.incarnation?.split('-').at(-1)), 'SIGKILL');
    const waiting = async () =>
      (await nodes.fleet()).slots.find(({ state }) => state === 'placing')?.problem;
    await expect
      .poll(async () => (await waiting())?.wayOut, LONG)
      .toContain(`uncordon local ${other}`);
    expect((await engines()).toSorted()).toEqual([used, used]);
    expect(await say('cluster', 'uncordon', 'local', other)).toMatch(/^0 /u);
    await expect
      .poll(async () => (await engines()).toSorted(), LONG)
      .toEqual([used, used, other].toSorted());
  },
  TIMEOUT_MS,
);

test(
  'no actor is left on the cluster when the last engine has gone',
  async () => {
    const { address } = await nodes.status();
    if (address === undefined) throw new Error('the cluster has no address');
    const living = async (): Promise<(string | null | undefined)[]> =>
      (await listActors(address)).filter(({ state }) => state !== 'DEAD').map(({ name }) => name);
    expect((await living()).filter((name) => name?.startsWith('sentinel-'))).not.toEqual([]);
    await folder.rankflow(['fleet', 'stop', FLEET], 120_000);
    await expect.poll(living, { timeout: 20_000 }).toEqual([]);
  },
  TIMEOUT_MS,
);

async function at(time: number): Promise<void> {
  await new Promise((resolve) => {
    setTimeout(resolve, Math.max(0, time - Date.now()));
  });
}
