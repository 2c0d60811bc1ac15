/**
 * What a spot machine costs that is taken away: with notice of different lengths, and without.
 *
 *     node bench/preemption.js --rounds 3 --notice none,0,30,120 --json result.json
 *
 * Each time the same requests are answered by two simulated engines (made-up answers at a set pace, so that what
 * was decoded can be counted to the token) on two local Ray nodes with room for two engines each. When a quarter
 * of the rows is done, one node gets notice through its file and is killed at the deadline (3 s after a notice of
 * 0 s): SIGKILL for every process of it. Without notice it is killed at once. Prints a table in Markdown.
 *
 * Tokens decoded twice are those that the engines' ledgers hold beyond those of the results. Times count from when
 * the node was gone; a negative one was before. The rounds that the file of
 * `--json` already holds are counted too, so that many rounds can be measured bit by bit.
 */
import {
  existsSync,
  readFileSync,
  readdirSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { markedProcesses } from '../dist/activities/local/marked-processes.js';
import { MARKER } from '../dist/activities/local/node-command.js';
import { inHome, rankflow, statusOf, until, withOwnStack } from './own-stack.js';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    notice: { type: 'string', default: 'none,30' },
    rows: { type: 'string', default: '3000' },
    json: { type: 'string' },
  },
});

const CLUSTER = 'local';
const FLEET = 'spot';
const ENGINE = {
  /** Tokens a second of one engine, for the 32 rows together that it decodes side by side. */
  tokensPerSecond: 500,
  sideBySide: 32,
  /** A stand-in for reading the weights. */
  loadSeconds: 15,
};
/** Answers have 1 to 64 tokens: a row is decoded for 4 s at most. */
const MOST_TOKENS = 64;
const BATCH_ROWS = 500;
/** Nobody hears of a node that goes in the moment in which it gives notice. */
const LEAST_SECONDS = 3;

const jsonLines = (file) =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));

function writeRequests(file) {
  const rows = Array.from({ length: Number(values.rows) }, (_, row) => ({
    custom_id: `row-${row}`,
    method: 'POST',
    url: '/v1/chat/completions',
    body: { messages: [{ role: 'user', content: `question ${row}` }], max_tokens: MOST_TOKENS },
  }));
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
}

/** The node of the engine with the highest slot, and that engine's process. */
async function victim() {
  const { slots } = await statusOf('fleet', FLEET);
  const { nodeId, incarnation } = slots.at(-1);
  const { nodes } = await statusOf('cluster', CLUSTER);
  return { node: nodes.find((one) => one.nodeId === nodeId).name, engine: incarnation };
}

function giveNotice(node, seconds) {
  const file = inHome('clusters', CLUSTER, `${node}.preempted`);
  writeFileSync(`${file}.new`, JSON.stringify({ deadline: seconds }));
  renameSync(`${file}.new`, file);
}

/** Switches the machine off; returns when, in milliseconds since the epoch. */
function kill(node) {
  const { process: leader } = JSON.parse(
    readFileSync(inHome('clusters', CLUSTER, `${node}.json`), 'utf8'),
  );
  const variables = readFileSync(`/proc/${leader.pid}/environ`, 'latin1').split('\0');
  const marker = variables.find((one) => one.startsWith(`${MARKER}=`)).slice(MARKER.length + 1);
  for (const pid of markedProcesses(marker)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended with one that was killed before it.
    }
  }
  return Date.now();
}

/** What the engines decoded of one run, to the token; `killedAt` ends what a killed process began. */
function decodedOf(runId, killedAt) {
  const open = new Map();
  let tokens = 0;
  let cutRows = 0;
  for (const file of readdirSync(inHome('ledger'))) {
    for (const line of jsonLines(inHome('ledger', file))) {
      if (!line.request.startsWith(`${runId}-`)) continue;
      const begun = open.get(line.request);
      if (begun === undefined) {
        open.set(line.request, line);
        continue;
      }
      open.delete(line.request);
      tokens += line.decoded;
      if (line.decoded < begun.tokens) cutRows += 1;
    }
  }
  for (const { at, tokens: all, seconds } of open.values()) {
    tokens += Math.round(all * Math.min(1, (killedAt / 1000 - at) / seconds));
  }
  return { tokens, cutRows: cutRows + open.size };
}

/** Rows that were finished more than once, and when the last batch that was lost was taken up again. */
function attemptsOf(runId) {
  const folder = inHome('store/runs', runId, 'attempts');
  let finishedTwice = 0;
  let takenUpAt = 0;
  for (const batch of readdirSync(folder)) {
    const attempts = readdirSync(path.join(folder, batch))
      .map((name) => path.join(folder, batch, name))
      .toSorted((a, b) => statSync(a).birthtimeMs - statSync(b).birthtimeMs);
    const answers = new Map();
    for (const file of attempts) {
      for (const { row, output } of jsonLines(file)) {
        // A row that was taken over is the same answer to the byte, with the same id.
        answers.set(row, (answers.get(row) ?? new Set()).add(output.id));
      }
    }
    finishedTwice += [...answers.values()].reduce((sum, ids) => sum + ids.size - 1, 0);
    for (const file of attempts.slice(1)) {
      takenUpAt = Math.max(takenUpAt, statSync(file).birthtimeMs);
    }
  }
  return { finishedTwice, takenUpAt };
}

/** When the last engine became ready, once all are. */
async function allReadyAt() {
  let slots;
  await until(async () => {
    const fleet = await statusOf('fleet', FLEET);
    slots = fleet.slots.filter(({ state }) => state !== 'draining');
    return slots.every(({ state }) => state === 'ready');
  }, 120);
  return Math.max(...slots.map(({ since }) => Date.parse(since)));
}

/** One run in which a node is taken away; `notice`: seconds, or undefined for none. */
async function round(runId, input, notice) {
  const engineArgs = {
    tokens_per_second: ENGINE.tokensPerSecond,
    load_seconds: ENGINE.loadSeconds,
    ledger: inHome('ledger'),
  };
  const running = rankflow(
    ...['run', input, '--backend', 'simulated', '--model', 'stand-in', '--fleet', FLEET],
    ...['--engines', '2', '--nodes', '2', '--ranks', '2', '--cpus-per-engine', '0.5', '--keep'],
    ...['--max-num-seqs', String(ENGINE.sideBySide), '--batch-rows', String(BATCH_ROWS)],
    ...Object.entries(engineArgs).flatMap(([key, value]) => ['--engine-arg', `${key}=${value}`]),
    ...['--run-id', runId, '--json'],
  );
  let begun;
  let killing;
  for await (const line of running) {
    const event = JSON.parse(line);
    if (event.event !== 'progress') continue;
    if (event.doneRows > 0) begun ??= Date.now();
    if (killing !== undefined || event.doneRows < Number(values.rows) / 4) continue;
    const { node } = await victim();
    killing = (async () => {
      if (notice === undefined) return kill(node);
      giveNotice(node, notice);
      await sleep(Math.max(notice, LEAST_SECONDS) * 1000);
      return kill(node);
    })();
  }
  const { exitCode, stderr, stdout } = await running;
  if (exitCode !== 0) throw new Error(`the run failed: ${stderr}`);
  const ended = Date.now();
  const result = JSON.parse(stdout.trim().split('\n').at(-1));
  if (result.succeeded !== Number(values.rows)) throw new Error('rows are missing');
  const killedAt = await killing;
  const { tokens, cutRows } = decodedOf(runId, killedAt);
  const { finishedTwice, takenUpAt } = attemptsOf(runId);
  const readyAt = await allReadyAt();
  return {
    notice: notice ?? null,
    tokens: result.completionTokens,
    tokensTwice: tokens - result.completionTokens,
    cutRows,
    finishedTwice,
    takenUpSeconds: takenUpAt === 0 ? 0 : (takenUpAt - killedAt) / 1000,
    replacedSeconds: (readyAt - killedAt) / 1000,
    generatingSeconds: (ended - begun) / 1000,
  };
}

const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];

function table(results) {
  const cases = [...new Set(results.map(({ notice }) => notice))];
  const lines = cases.map((notice) => {
    const of = (key) => results.filter((one) => one.notice === notice).map((one) => one[key]);
    const show = (key, digits = 0) =>
      `${median(of(key)).toFixed(digits)} (${Math.max(...of(key)).toFixed(digits)})`;
    return [
      notice === null ? 'none' : `${notice} s`,
      of('tokens').length,
      show('tokensTwice'),
      show('cutRows'),
      show('finishedTwice'),
      show('takenUpSeconds'),
      show('replacedSeconds'),
      show('generatingSeconds'),
    ].join(' | ');
  });
  return [
    '| notice | rounds | tokens decoded twice | rows cut in decode | rows finished twice | last batch taken up again (s) | engine replaced (s) | run (s) |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ...lines.map((line) => `| ${line} |`),
  ].join('\n');
}

const earlier =
  values.json !== undefined && existsSync(values.json)
    ? JSON.parse(readFileSync(values.json, 'utf8'))
    : [];
const results = [...earlier];

await withOwnStack(FLEET, async () => {
  const input = inHome('requests.jsonl');
  writeRequests(input);
  for (let index = 0; index < Number(values.rounds); index += 1) {
    for (const word of values.notice.split(',')) {
      const notice = word === 'none' ? undefined : Number(word);
      const result = await round(`n-${word}-${index}`, input, notice);
      results.push(result);
      console.error(JSON.stringify(result));
      // Engines begin on a node each again, and with the machine back.
      await rankflow('fleet', 'stop', FLEET);
      await until(async () => (await statusOf('cluster', CLUSTER)).state === 'ready', 300);
    }
  }
  console.log(`${values.rows} rows, ${results[0].tokens} tokens; median (most) of each:\n`);
  console.log(table(results));
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`);
});
