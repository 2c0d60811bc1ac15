/**
 * Bare vLLM, vLLM's run_batch and Rankflow on the same requests, one after the other, in one run.
 *
 *     node bench/side-by-side.js FILE --engines 2 --model SmolLM2-135M-Instruct
 *
 * FILE is OpenAI Batch JSONL with chat rows; `--repeat N` takes them N times over. Rankflow is measured cold
 * (cluster and engines started) and warm (the same requests once more on the fleet that is up). "Generating" is
 * what `LLM.chat` took for bare vLLM; for Rankflow, from the start of its first rank to the end of its last, so
 * commits and Temporal are in it. Prints a table in Markdown.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { execa } from 'execa';

import { withClient } from '../dist/client/connection.js';
import { rankWorkflowId } from '../dist/contracts/names.js';
import { paths } from '../dist/setup/paths.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    engines: { type: 'string', default: '2' },
    ranks: { type: 'string', default: '4' },
    repeat: { type: 'string', default: '1' },
    model: { type: 'string', default: 'SmolLM2-135M-Instruct' },
  },
});
const [given] = positionals;
if (given === undefined) throw new Error('usage: node bench/side-by-side.js FILE [--engines N]');
const { engines, ranks, model } = values;
const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-side-by-side-'));
const file = path.join(folder, 'requests.jsonl');
writeFileSync(file, repeated(readFileSync(given, 'utf8'), Number(values.repeat)));
const rankflow = path.join(paths.packageRoot, 'dist/cli/main.js');

/** The rows several times over, each with an id of its own. */
function repeated(text, times) {
  const rows = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  const copy = (round) =>
    rows.map((row) => `${JSON.stringify({ ...row, custom_id: `${row.custom_id}-${round}` })}\n`);
  return Array.from({ length: times }, (_, round) => copy(round))
    .flat()
    .join('');
}

async function peer(name) {
  const script = path.join(paths.packageRoot, 'bench/peers.py');
  const modelFolder = path.join(paths.models, model);
  const arguments_ = [script, name, file, '--model', modelFolder, '--engines', engines];
  const { stdout } = await execa(paths.python, arguments_, { stderr: 'inherit' });
  const { rows, tokens, seconds, generating } = JSON.parse(stdout);
  return {
    name: name === 'bare' ? 'bare vLLM' : 'vLLM run_batch',
    rows,
    tokens,
    seconds,
    generating,
  };
}

/** The last NDJSON event of `rankflow run --json` is the result. */
async function ours(name) {
  const started = performance.now();
  const { stdout } = await execa(
    process.execPath,
    [
      ...[rankflow, 'run', file, '--model', model, '--engines', engines, '--ranks', ranks],
      ...['--dtype', 'bfloat16', '--max-model-len', '2048', '--new', '--keep', '--json'],
    ],
    { stderr: 'inherit' },
  );
  const events = stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line));
  const result = events.findLast((event) => event.event === 'result');
  return {
    name,
    rows: result.rows,
    tokens: result.completionTokens,
    seconds: (performance.now() - started) / 1000,
    generating: await generatingSeconds(result.runId),
  };
}

/** Seconds from the start of the first rank of a run to the end of its last. */
async function generatingSeconds(runId) {
  const spans = await withClient(async (client) =>
    Promise.all(
      Array.from({ length: Number(ranks) }, async (_, rank) => {
        const handle = client.workflow.getHandle(rankWorkflowId(runId, rank));
        const { startTime, closeTime } = await handle.describe();
        return [startTime.getTime(), closeTime.getTime()];
      }),
    ),
  );
  const first = Math.min(...spans.map(([start]) => start));
  return (Math.max(...spans.map(([, end]) => end)) - first) / 1000;
}

const results = [await peer('bare'), await peer('run-batch'), await ours('Rankflow, cold')];
results.push(await ours('Rankflow, warm'));
rmSync(folder, { recursive: true });
console.log(
  '| contender | rows | completion tokens | seconds in all | seconds generating | tokens/s |',
);
console.log('|---|---|---|---|---|---|');
for (const { name, rows, tokens, seconds, generating } of results) {
  const rate = (tokens / generating).toFixed(0);
  const cells = [name, rows, tokens, seconds.toFixed(1), generating.toFixed(1), rate];
  console.log(`| ${cells.join(' | ')} |`);
}
