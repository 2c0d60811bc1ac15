/**
 * A run that is disturbed when a quarter of it is done, where the stack is up.
 *
 *     node bench/gpu/disturb.js kill|scale MODEL ENGINES RESULT.json
 *
 * `kill`: SIGKILL for the process of one engine. `scale`: twice the engines. 8 ranks; every row must be there once.
 */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';

import { execa } from 'execa';

import { paths } from '../../dist/setup/paths.js';

const [how, model, engines, result] = process.argv.slice(2);
const ROWS = Number(process.env.ROWS ?? 4000) * Number(engines);
const fleet = `disturb-${how}`;
const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-disturb-'));
const requests = path.join(folder, 'requests.jsonl');
const answers = path.join(folder, 'answers.jsonl');
const runId = `disturb-${randomUUID().slice(0, 8)}`;
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
    model: path.basename(model),
    messages: [{ role: 'user', content: `Tell me about the number ${number}. `.repeat(8) }],
    max_tokens: 128,
    temperature: 0,
    ignore_eos: true,
  },
});
const lines = Array.from({ length: ROWS }, (_, number) => JSON.stringify(row(number)));
writeFileSync(requests, `${lines.join('\n')}\n`);

const place =
  model === 'simulated'
    ? [
        '--backend',
        'simulated',
        '--cpus-per-engine',
        '0.2',
        '--engine-arg',
        'tokens_per_second=20000',
      ]
    : ['--gpus-per-engine', '1', '--max-num-seqs', '512', '--max-model-len', '2048'];

/** Rows so far; 0 while nobody knows the run. */
const done = async () => (await json('status', runId)).doneRows;

const events = [];
const note = (what) => events.push({ what, at: Date.now() / 1000 });
try {
  const running = rankflow(
    ...['run', requests, '--model', model, '--run-id', runId, '--json', '--keep', '--no-start'],
    ...['--engines', engines, '--ranks', '8', '--fleet', fleet, '--cluster', fleet],
    ...['--store', path.join(folder, 'store'), '--out', answers, ...place],
  );
  note('asked');
  while ((await done().catch(() => 0)) < ROWS / 4) await sleep(500);
  if (how === 'kill') {
    const { slots } = await json('fleet', 'status', fleet);
    const pid = Number(slots[0].incarnation.split('-').at(-1));
    process.kill(pid, 'SIGKILL');
  } else {
    await rankflow('scale', fleet, String(2 * Number(engines)));
  }
  note(how);
  const { stdout, exitCode } = await running;
  note('ended');
  const end = stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
    .find((event) => event.event === 'result');
  const ids = readFileSync(answers, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line).custom_id);
  const whole = ids.length === ROWS && new Set(ids).size === ROWS;
  writeFileSync(result, `${JSON.stringify({ how, model, engines, ROWS, events, end, whole })}\n`);
  console.log(`${how}: ${whole ? 'every row once' : 'ROWS ARE MISSING OR TWICE'}`);
  process.exitCode = exitCode === 0 && whole ? 0 : 1;
} finally {
  await rankflow('fleet', 'stop', fleet);
  await rankflow('cluster', 'down', fleet);
  rmSync(folder, { recursive: true, force: true });
}
