/**
 * A run that is disturbed when a fifth of it is done, where the stack is up.
 *
 *     node bench/disturb.js kill|scale --model MODEL --engines N --out RESULT.json -- OPTIONS OF `rankflow run`
 *
 * `kill`: SIGKILL for the process of one engine. `scale`: twice the engines. Every row must be there once. Measured are
 * the tokens of finished rows, looked at twice a second: their rate before, after, and from when it is back at
 * (nearly) what it was, or at twice of it, over ten seconds; when engines were ready, and how long they took to load.
 */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { execa } from 'execa';

import { paths } from '../dist/setup/paths.js';
import { FinishedRows } from './finished.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string' },
    engines: { type: 'string', default: '2' },
    rows: { type: 'string', default: '4000' },
    out: { type: 'string' },
  },
});
const [how, ...options] = positionals;
/** Over so many seconds a rate is taken: rows of one length end in waves. */
const SPAN = 10;
/** Less than this share of the rate that it had before is not full throughput. */
const NEARLY = 0.95;
const engines = Number(values.engines);
const rows = Number(values.rows) * engines;
const name = `disturb-${how}`;
const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-disturb-'));
const requests = path.join(folder, 'requests.jsonl');
const answers = path.join(folder, 'answers.jsonl');
const runId = `${name}-${randomUUID().slice(0, 8)}`;
const rankflow = (...args) =>
  execa(process.execPath, [path.join(paths.packageRoot, 'dist/cli/main.js'), ...args], {
    reject: false,
  });
const json = async (...args) => JSON.parse((await rankflow(...args, '--json')).stdout);

const row = (number) => ({
  custom_id: `row-${number}`,
  method: 'POST',
  url: '/v1/chat/completions',
  body: {
    model: path.basename(values.model),
    messages: [{ role: 'user', content: `Tell me about the number ${number}. `.repeat(8) }],
    // Of different lengths, so that they do not end in waves.
    max_tokens: 64 + ((number * 37) % 129),
    temperature: 0,
    ignore_eos: true,
  },
});

const now = () => Date.now() / 1000;

/** The engines of the fleet: what changes is noted with its time, until `ended`. */
class Engines {
  #known = new Map();
  changes = [];
  slots = [];

  async look() {
    const { slots } = await json('fleet', 'status', name);
    this.slots = slots;
    for (const { slot, state, incarnation, since, loadSeconds } of slots) {
      const seen = `${state} ${incarnation}`;
      if (this.#known.get(slot) === seen) continue;
      this.#known.set(slot, seen);
      this.changes.push({ slot, state, incarnation, at: Date.parse(since) / 1000, loadSeconds });
    }
  }

  /** When the last engine that became ready after `at` did, and how long it had loaded. */
  readyAfter(at) {
    const ready = this.changes.filter((one) => one.state === 'ready' && one.at > at);
    return ready.toSorted((a, b) => a.at - b.at).at(-1);
  }
}

async function disturb(fleet) {
  if (how === 'scale') {
    await rankflow('scale', name, String(2 * engines));
    return;
  }
  process.kill(Number(fleet.slots[0].incarnation.split('-').at(-1)), 'SIGKILL');
}

/** From when the rate over `SPAN` seconds is `wanted`, or undefined. */
function backAt(finished, after, wanted) {
  const starts = finished.samples.map(({ at }) => at).filter((at) => at >= after);
  return starts.find((at) => (finished.rate(at, at + SPAN) ?? 0) >= NEARLY * wanted);
}

writeFileSync(
  requests,
  Array.from({ length: rows }, (_, number) => `${JSON.stringify(row(number))}\n`).join(''),
);
const finished = new FinishedRows(path.join(folder, 'store'), runId);
const fleet = new Engines();
try {
  let over = false;
  const running = rankflow(
    ...['run', requests, '--model', values.model, '--run-id', runId, '--json', '--keep'],
    ...['--engines', String(engines), '--fleet', name, '--cluster', name],
    ...['--nodes', '0'],
    ...['--store', path.join(folder, 'store'), '--out', answers, ...options],
  ).finally(() => {
    over = true;
  });
  const all = Array.from({ length: rows }, (_, number) => row(number).body.max_tokens);
  const tokens = all.reduce((sum, more) => sum + more, 0);
  let begun;
  let disturbed;
  const watching = (async () => {
    for (; !over; await sleep(1000)) await fleet.look().catch(() => undefined);
  })();
  for (; !over; await sleep(500)) {
    finished.look();
    const done = finished.samples.at(-1).tokens;
    if (done > 0) begun ??= now();
    if (disturbed !== undefined || done < tokens / 5 || fleet.slots.length === 0) continue;
    disturbed = now();
    await disturb(fleet);
  }
  const ended = now();
  const { stdout, stderr, exitCode } = await running;
  await watching;
  const events = stdout.split('\n').filter((line) => line.startsWith('{'));
  const end = events.map((line) => JSON.parse(line)).find(({ event }) => event === 'result');
  if (exitCode !== 0 || disturbed === undefined) throw new Error(`the run failed: ${stderr}`);
  const ids = readFileSync(answers, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line).custom_id);
  const whole = ids.length === rows && new Set(ids).size === rows;
  const before = finished.rate(begun, disturbed);
  const ready = fleet.readyAfter(disturbed);
  const back = backAt(finished, disturbed, how === 'scale' ? 2 * before : before);
  const since = (at) => (at === undefined ? undefined : at - disturbed);
  const shown = {
    ...{ how, model: values.model, engines, rows, tokens, whole, options },
    ...{
      before,
      after: ready && finished.rate(ready.at, ended),
      redone: end.cost?.redoneTokens ?? 0,
    },
    ...{ readyAfter: since(ready?.at), loadSeconds: ready?.loadSeconds, fullAfter: since(back) },
    ...{ seconds: ended - begun, disturbed },
  };
  const { changes } = fleet;
  writeFileSync(
    values.out,
    `${JSON.stringify({ ...shown, changes, samples: finished.samples })}\n`,
  );
  console.log(JSON.stringify(shown, null, 2));
  if (!whole) console.log('ROWS ARE MISSING OR TWICE');
  process.exitCode = whole ? 0 : 1;
} finally {
  await rankflow('fleet', 'stop', name);
  await rankflow('cluster', 'down', name);
  rmSync(folder, { recursive: true, force: true });
}
