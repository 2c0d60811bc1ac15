/**
 * Bare vLLM, vLLM's run_batch and Rankflow on the same requests, one after the other, in one run.
 *
 *     node bench/side-by-side.js FILE --engines 2 --model SmolLM2-135M-Instruct
 *
 * FILE is OpenAI Batch JSONL with chat rows. Rankflow is measured cold (cluster and engines started) and warm
 * (the same requests once more on the fleet that is up). Prints a table in Markdown.
 */
import path from 'node:path';
import { parseArgs } from 'node:util';

import { execa } from 'execa';

import { paths } from '../dist/setup/paths.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    engines: { type: 'string', default: '2' },
    ranks: { type: 'string', default: '4' },
    model: { type: 'string', default: 'SmolLM2-135M-Instruct' },
  },
});
const [file] = positionals;
if (file === undefined) throw new Error('usage: node bench/side-by-side.js FILE [--engines N]');
const { engines, ranks, model } = values;
const rankflow = path.join(paths.packageRoot, 'dist/cli/main.js');

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
    generating: result.generatingSeconds ?? null,
  };
}

const results = [await peer('bare'), await peer('run-batch'), await ours('Rankflow, cold')];
results.push(await ours('Rankflow, warm'));
console.log(
  '| contender | rows | completion tokens | seconds in all | seconds generating | tokens/s |',
);
console.log('|---|---|---|---|---|---|');
for (const { name, rows, tokens, seconds, generating } of results) {
  const rate = (tokens / (generating ?? seconds)).toFixed(0);
  const cells = [name, rows, tokens, seconds.toFixed(1), generating?.toFixed(1) ?? '–', rate];
  console.log(`| ${cells.join(' | ')} |`);
}
