/**
 * What the control plane costs, from few rows to many: runs of simulated engines that answer at once.
 *
 *     node bench/scale.js --rows 10000,100000,1000000 --engines 2 --json result.json
 *
 * Every row is a request of about a kilobyte, or of `--characters` and 120 bytes more. Of each run: seconds of planning,
 * generating and finalizing; events of all histories and the largest one; growth of Temporal's database; seconds of a
 * processor that each kind of process took, and its resident memory by quarter of the run, so that what grows with the
 * rows shows. Prints a table in Markdown.
 *
 *     node bench/scale.js --rows '' --check SmolLM2-135M-Instruct
 *
 * Rows a second that are checked as for vLLM, with a model's own tokenizer and chat template.
 */
import {
  createWriteStream,
  existsSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { once } from 'node:events';
import { parseArgs } from 'node:util';

import { Client, Connection } from '@temporalio/client';

import { home, inHome, rankflow, withOwnStack } from './own-stack.js';

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '10000,100000' },
    engines: { type: 'string', default: '2' },
    characters: { type: 'string', default: '780' },
    json: { type: 'string' },
    check: { type: 'string' },
  },
});

const FLEET = 'scale';
const FILLER = 'scale '.repeat(Number(values.characters) / 6);
const SAMPLE_MS = 1000;
/** Two inputs to check, as the time of the smaller one is nearly all that of vLLM's import. */
const CHECKED_ROWS = [1000, 101_000];

/** Written as a stream: a million rows are a gigabyte. */
async function writeRequests(file, rows) {
  const out = createWriteStream(file);
  for (let row = 0; row < rows; row += 1) {
    const body = { messages: [{ role: 'user', content: `${FILLER}${row}` }], max_tokens: 8 };
    const line = { custom_id: `row-${row}`, method: 'POST', url: '/v1/chat/completions', body };
    if (!out.write(`${JSON.stringify(line)}\n`)) await once(out, 'drain');
  }
  out.end();
  await once(out, 'close');
}

/** Kinds of process, by what their command line says. */
const KINDS = [
  ['Temporal', /temporal server/u],
  ['control worker', /workers\/control\.js/u],
  ['Python worker', /-m rankflow\.worker/u],
  ['planner', /-m rankflow\.rows/u],
  ['engine', /EngineActor/u],
  ['command line', /cli\/main\.js run/u],
  ['Ray', /ray|gcs_server|dashboard/u],
];
/** Of the clock in which Linux counts a process's time. */
const TICKS_PER_SECOND = 100;

/** Resident memory of the largest process of each kind, in MB; adds their times to `used`, in seconds by process. */
function look(used, alreadyThere = false) {
  const found = {};
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/u.test(name))) {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      const kind = KINDS.find(([, pattern]) => pattern.test(command))?.[0];
      if (kind === undefined) continue;
      if (!readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`RANKFLOW_HOME=${home}`)) continue;
      const kilobytes = /VmRSS:\s+(\d+)/u.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
      found[kind] = Math.max(found[kind] ?? 0, Math.round(Number(kilobytes) / 1000));
      // User and system time; the name before them may have spaces in it.
      const times = readFileSync(`/proc/${pid}/stat`, 'utf8')
        .split(') ')[1]
        .split(' ')
        .slice(11, 13);
      const last = times.reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_PER_SECOND;
      used.set(pid, { kind, first: used.get(pid)?.first ?? (alreadyThere ? last : 0), last });
    } catch {
      // It ended meanwhile.
    }
  }
  return found;
}

/** The largest sample of each quarter of the time, for each kind of process. */
function byQuarter(samples) {
  const quarter = (index) =>
    samples.slice(
      Math.floor((index * samples.length) / 4),
      Math.max(1, Math.ceil(((index + 1) * samples.length) / 4)),
    );
  return Object.fromEntries(
    KINDS.map(([kind]) => [
      kind,
      [0, 1, 2, 3].map((index) => Math.max(0, ...quarter(index).map((one) => one[kind] ?? 0))),
    ]),
  );
}

/** Seconds of a processor between the first and the last look, summed over the processes of each kind. */
const byKind = (used) =>
  Object.fromEntries(
    KINDS.map(([kind]) => {
      const own = [...used.values()].filter((one) => one.kind === kind);
      return [
        kind,
        Math.round(own.reduce((sum, { first, last }) => sum + last - first, 0) * 10) / 10,
      ];
    }),
  );

/** Bytes of Temporal's database, with what is not yet moved into it. */
const databaseBytes = () =>
  ['temporal.db', 'temporal.db-wal']
    .map((name) => inHome('stack', name))
    .filter((file) => existsSync(file))
    .reduce((sum, file) => sum + statSync(file).size, 0);

/** All executions of a run and its ranks, also those that were continued as new. */
async function executionsOf(client, runId) {
  const found = [];
  const query = `WorkflowId STARTS_WITH "run/${runId}" OR WorkflowId STARTS_WITH "inference/${runId}"`;
  for await (const one of client.workflow.list({ query })) {
    found.push(await client.workflow.getHandle(one.workflowId, one.runId).describe());
  }
  return found;
}

const seconds = (from, to) => Math.round((to.getTime() - from.getTime()) / 100) / 10;

async function measure(runId, rows) {
  const input = inHome(`${runId}.jsonl`);
  await writeRequests(input, rows);
  const before = databaseBytes();
  const samples = [];
  const used = new Map();
  look(used, true);
  const timer = setInterval(() => samples.push(look(used)), SAMPLE_MS);
  const begun = Date.now();
  const { exitCode, stdout, stderr } = await rankflow(
    ...['run', input, '--backend', 'simulated', '--model', 'stand-in', '--fleet', FLEET],
    ...['--engines', values.engines, '--nodes', '1', '--cpus-per-engine', '0.1', '--keep'],
    ...['--max-num-seqs', '256', '--engine-arg', 'tokens_per_second=100000000'],
    ...['--run-id', runId, '--json'],
  );
  const whole = (Date.now() - begun) / 1000;
  clearInterval(timer);
  if (exitCode !== 0) throw new Error(`run ${runId} failed: ${stdout.slice(-2000)}${stderr}`);
  const result = JSON.parse(stdout.trim().split('\n').at(-1));
  if (result.succeeded !== rows) throw new Error(`${result.succeeded} of ${rows} rows`);

  const { address } = JSON.parse((await rankflow('up', '--json')).stdout);
  const client = new Client({ connection: await Connection.connect({ address }) });
  const executions = await executionsOf(client, runId);
  const run = executions.find(({ workflowId }) => workflowId === `run/${runId}`);
  const inference = executions.find(({ workflowId }) => workflowId === `inference/${runId}`);
  const ranks = executions.filter(({ workflowId }) => workflowId.includes('/rank-'));
  const first = new Date(Math.min(...ranks.map(({ startTime }) => startTime.getTime())));
  const last = new Date(Math.max(...ranks.map(({ closeTime }) => closeTime.getTime())));
  const generating = seconds(first, last);
  await client.connection.close();
  return {
    rows,
    inputMegabytes: Math.round(statSync(input).size / 1e6),
    planning: seconds(inference.startTime, first),
    generating,
    finalizing: seconds(last, run.closeTime),
    whole: Math.round(whole * 10) / 10,
    rowsPerSecond: Math.round(rows / seconds(inference.startTime, run.closeTime)),
    events: executions.reduce((sum, { historyLength }) => sum + historyLength, 0),
    largestEvents: Math.max(...executions.map(({ historyLength }) => historyLength)),
    largestBytes: Math.max(...executions.map(({ historySize }) => historySize ?? 0)),
    databaseMegabytes: Math.round((databaseBytes() - before) / 1e5) / 10,
    processorSeconds: byKind(used),
    memoryMegabytes: byQuarter(samples),
  };
}

/** Rows checked in a second once everything is imported. */
async function checked(model) {
  const took = [];
  // The first one reads all that is imported from the disk, and does not count.
  for (const rows of [CHECKED_ROWS[0], ...CHECKED_ROWS]) {
    const input = inHome(`check-${rows}.jsonl`);
    await writeRequests(input, rows);
    const begun = Date.now();
    const { exitCode, stderr } = await rankflow('validate', input, '--model', model);
    took.push((Date.now() - begun) / 1000);
    if (exitCode !== 0) throw new Error(`the check of ${rows} rows failed: ${stderr}`);
  }
  const [few, many] = CHECKED_ROWS;
  const [, short, long] = took;
  return { few: short, many: long, rate: Math.round((many - few) / (long - short)) };
}

function table(results) {
  const head =
    '| rows | input MB | plan s | generate s | finalize s | rows/s | events | largest history | its KB | database MB | control worker MB | planner MB |';
  const lines = results.map((one) => {
    const most = (kind) => Math.max(...one.memoryMegabytes[kind]);
    return [
      ...[one.rows.toLocaleString('en'), one.inputMegabytes, one.planning, one.generating],
      ...[one.finalizing, one.rowsPerSecond, one.events, one.largestEvents],
      ...[Math.round(one.largestBytes / 1000), one.databaseMegabytes],
      ...[most('control worker'), most('planner')],
    ].join(' | ');
  });
  return [head, head.replaceAll(/[^|]+/gu, ' --- '), ...lines.map((line) => `| ${line} |`)].join(
    '\n',
  );
}

await withOwnStack(FLEET, async () => {
  if (values.check !== undefined) {
    const { few, many, rate } = await checked(values.check);
    console.log(`${rate} rows/s are checked with the tokenizer of ${values.check}`);
    console.log(`(${CHECKED_ROWS.join(' and ')} rows: ${few} and ${many} s)`);
  }
  const sizes = values.rows.split(',').filter(Boolean).map(Number);
  if (sizes.length === 0) return;
  // Brings the fleet up, so that no run waits for it.
  await measure('warm-up', 1000);
  const results = [];
  for (const rows of sizes) {
    const result = await measure(`scale-${rows}`, rows);
    results.push(result);
    console.error(JSON.stringify(result));
    if (values.json !== undefined) {
      writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`);
    }
  }
  console.log(table(results));
});
