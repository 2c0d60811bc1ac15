import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { JobView } from '../../src/client/jobs.js';
import { paths } from '../../src/setup/paths.js';
import { Nodes } from '../e2e/nodes.js';
import { DataFolder, readLines, type ResultLine } from '../e2e/rankflow.js';
import { eventually } from '../support/harness.js';

const EXAMPLES = path.join(paths.packageRoot, 'examples/jobs');
const MODEL = path.join(paths.models, 'SmolLM2-135M-Instruct');
/** More logical CPUs than cores: trainers hold some for hours, and data are read meanwhile. */
const CLUSTER = ['--nodes', '2', '--cpus-per-node', '3', '--keep'];
const FLEET = 'tuned';

let folder: DataFolder;
let nodes: Nodes;

interface Ended {
  readonly job: JobView;
  readonly log: string;
}

/** Submits an example as a user does, and waits for its end. */
async function submit(name: string, options: string[], ...command: string[]): Promise<Ended> {
  const { stdout, stderr } = await folder.rankflow([
    ...['job', 'submit', '--json', '--name', name, '--working-dir', EXAMPLES],
    ...[...CLUSTER, ...options, '--', 'python', ...command],
  ]);
  const last = stdout.trim().split('\n').at(-1) ?? '';
  const log = await folder.rankflow(['job', 'logs', name]);
  if (!last.startsWith('{')) throw new Error(`no result: ${stdout}\n${stderr}`);
  return { job: JSON.parse(last) as JobView, log: log.stdout };
}

const checkpoints = (job: string, ...rest: string[]): string =>
  folder.file(path.join('store/jobs', job, 'checkpoints', ...rest));
const filesIn = (folderName: string): string[] =>
  existsSync(folderName) ? readdirSync(folderName).toSorted() : [];
/** Waits until something is in the log that the store has of a job. */
const logged = async (job: string, pattern: RegExp): Promise<true> =>
  eventually(() => {
    const log = folder.file(`store/jobs/${job}/logs/${job}-a1/000000.log`);
    return existsSync(log) && pattern.test(readFileSync(log, 'utf8'));
  }, 180);

/** Real Ray Train, Data and Tune on two nodes; most of the time is for the imports of their workers. */
describe('the examples of jobs', { timeout: 360_000 }, () => {
  beforeAll(async () => {
    folder = new DataFolder({ RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S: '120' });
    nodes = new Nodes(folder, 'local', FLEET);
    await folder.rankflow(['cluster', 'up', ...CLUSTER.slice(0, 4)]);
  }, 360_000);
  afterAll(async () => folder.remove(FLEET), 360_000);

  it('train with Torch on two workers, and go on from the last checkpoint when a node is killed', async () => {
    const running = submit('moons', [], 'torch_train.py', '--epochs', '10', '--pause', '4');
    await logged('moons', /epoch 2 accuracy/u);
    nodes.kill('worker-1');
    const { job, log } = await running;
    expect(job, log).toMatchObject({ state: 'succeeded', metrics: { epochs: 10 } });
    // It began again after what was reported, and not from the start.
    expect(job.metrics?.['first_epoch']).toBeGreaterThanOrEqual(2);
    expect(job.metrics?.['accuracy']).toBeGreaterThan(0.8);
    // Each worker added its shard; of all checkpoints the two best are kept, and the last to go on from.
    expect(filesIn(job.checkpoint ?? '')).toEqual(
      expect.arrayContaining(['model.pt', 'optimizer-0.pt', 'optimizer-1.pt']),
    );
    expect(job.metrics?.['kept']).toBeLessThanOrEqual(3);
    const kept = filesIn(checkpoints('moons', 'moons')).filter((name) =>
      name.startsWith('checkpoint_'),
    );
    expect(kept.length).toBeLessThanOrEqual(3);
  });

  it('boost trees on a table', async () => {
    const { job, log } = await submit('trees', [], 'xgboost_train.py');
    expect(job, log).toMatchObject({ state: 'succeeded', metrics: { rounds: 40 } });
    // Prices spread over hundreds: the mean of all is off by about 90.
    expect(job.metrics?.['rmse']).toBeLessThan(40);
    expect(filesIn(job.checkpoint ?? '')).toContain('model.ubj');
  });

  it('feed a trainer with shards of a table', async () => {
    const { job, log } = await submit('houses', [], 'data_train.py');
    expect(job, log).toMatchObject({ state: 'succeeded', metrics: { epoch: 14 } });
    expect(job.metrics?.['loss']).toBeLessThan(0.5);
    expect(job.metrics?.['rows_of_worker_0']).toBeGreaterThan(100);
    expect(job.metrics?.['rows_of_worker_0']).toBeLessThan(300);
  });

  it('search with Tune, and go on with the search when the node of the script is killed', async () => {
    const command = ['tune_search.py', '--trials', '4'];
    const running = submit('search', ['--num-cpus', '1'], ...command);
    const results = async (): Promise<number> => filesIn(checkpoints('search', 'trials')).length;
    await eventually(async () => (await results()) >= 3, 180);
    const { stdout } = await folder.rankflow(['job', 'status', 'search', '--json']);
    nodes.kill((JSON.parse(stdout) as JobView).attempts[0]?.node ?? '');
    const { job, log } = await running;
    expect(job, log).toMatchObject({ state: 'succeeded', metrics: { trials: 4 } });
    expect(job.attempts.map(({ state }) => state)).toEqual(['lost', 'succeeded']);
    expect(log).toContain('a new search');
    expect(log).toMatch(/going on after [1-3] trials/u);
  });

  it('write a request file, fine-tune a model, and answer the requests with it', async () => {
    const requests = folder.file('requests.jsonl');
    const [made, tuned] = await Promise.all([
      submit('requests', [], 'data_to_requests.py', '--out', requests),
      submit('finetune', [], 'finetune.py', '--model', MODEL),
    ]);
    expect(made.job, made.log).toMatchObject({ state: 'succeeded', metrics: { rows: 16 } });
    expect(tuned.job, tuned.log).toMatchObject({ state: 'succeeded', metrics: { steps: 4 } });
    const out = folder.file('answers.jsonl');
    const { exitCode, stderr } = await folder.rankflow([
      ...['run', requests, '--model', tuned.job.checkpoint ?? '', '--fleet', FLEET, '--keep'],
      ...['--max-model-len', '512', '--cpus-per-engine', '1', '--out', out],
    ]);
    expect(exitCode, stderr).toBe(0);
    const answers = readLines(out) as ResultLine[];
    expect(answers).toHaveLength(16);
    for (const { custom_id: id, response } of answers) {
      expect(response?.body.choices[0]?.message.content.trim(), id).not.toBe('');
    }
  });
});
