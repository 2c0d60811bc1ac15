import { readFileSync } from 'node:fs';
import path from 'node:path';

import { Command } from 'commander';

import { inferenceWorkflowId } from '../contracts/names.js';
import { setUp } from '../setup/index.js';
import { logToStderr as say } from '../setup/log.js';
import { paint } from '../setup/paint.js';
import { paths } from '../setup/paths.js';
import { ensureStack, type StackInfo } from '../workers/stack/index.js';
import { register as registerRun } from './run.js';

const REQUESTS = path.join(paths.packageRoot, 'examples/requests.jsonl');
const RESULTS = path.join(paths.home, 'demo', 'results.jsonl');
/** A size that shows everything and that a laptop carries: two nodes, an engine on each. */
const SIZE = { engines: 2, ranks: 4, nodes: 2 };
const SHOWN = 3;

/** `rankflow demo`: from a fresh checkout to answers, with nothing to be chosen. */
export function register(program: Command): void {
  program
    .command('demo')
    .description('generate answers to 200 example requests with a small model on this machine')
    .option('--keep', 'leave the cluster and the engines up afterwards')
    .option('--json', 'print events as JSON lines')
    .action(demo);
}

async function demo(options: { keep?: boolean; json?: boolean }): Promise<void> {
  const { model } = await setUp({ log: say });
  const stack = await ensureStack({ log: say });
  const runId = await runIdOf(model);
  const ui = workflowPage(stack, runId);
  if (ui !== undefined) say(`Watch it in Temporal's web interface: ${ui}`);

  // The command that users type, so that the demo shows what they will see.
  const command = ['run', REQUESTS, '--model', model, '--out', RESULTS];
  const size = Object.entries(SIZE).flatMap(([name, count]) => [`--${name}`, String(count)]);
  const flags = (['keep', 'json'] as const).filter((flag) => options[flag]);
  const runner = new Command().exitOverride();
  registerRun(runner);
  await runner.parseAsync([...command, ...size, ...flags.map((flag) => `--${flag}`)], {
    from: 'user',
  });
  if (process.exitCode || options.json) return;

  say('');
  for (const { prompt, answer } of firstAnswers()) say(`${paint.bold(prompt)}\n  ${answer}\n`);
  say(`All answers:  ${RESULTS}`);
  if (ui !== undefined) say(`The workflow: ${ui}`);
  say('The same command again finds this run finished. Stop everything with: npx rankflow down');
}

/** The id that `run` derives from the input, the model and the sampling defaults. */
async function runIdOf(model: string): Promise<string> {
  const { prepare } = await import('./prepare.js');
  const { inference } = await prepare(REQUESTS, { model, cluster: 'local', ...SIZE });
  return inference.run.runId;
}

function workflowPage({ uiUrl, namespace }: StackInfo, runId: string): string | undefined {
  const id = encodeURIComponent(inferenceWorkflowId(runId));
  return uiUrl && `${uiUrl}/namespaces/${namespace}/workflows/${id}`;
}

/** Only what is shown of a request and of a result line, in OpenAI's Batch formats. */
interface Request {
  readonly body: { readonly messages: readonly { readonly content: string }[] };
}
interface Result {
  readonly response: {
    readonly body: {
      readonly choices: readonly { readonly message: { readonly content: string } }[];
    };
  };
}

function firstAnswers(): { prompt: string; answer: string }[] {
  const requests = firstLines<Request>(REQUESTS);
  return firstLines<Result>(RESULTS).map(({ response }, index) => ({
    prompt: requests[index]?.body.messages.at(-1)?.content ?? '',
    answer: response.body.choices[0]?.message.content.trim().replaceAll('\n', '\n  ') ?? '',
  }));
}

/** Both files are in input order, and the demo is shown only when every row succeeded. */
function firstLines<T>(file: string): T[] {
  const lines = readFileSync(file, 'utf8').split('\n', SHOWN);
  return lines.map((line) => JSON.parse(line) as T);
}
