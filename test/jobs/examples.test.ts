import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import type { JobView } from '../../src/client/jobs.js';
import { paths } from '../../src/setup/paths.js';
import { Nodes } from '../e2e/nodes.js';
import { DataFolder, readLines, type ResultLine } from '../e2e/rankflow.js';
import { eventually } from '../support/harness.js';
import { filesIn, processesOf, SHARED_MEMORY } from './leftovers.js';

const EXAMPLES = path.join(paths.packageRoot, 'examples/jobs');
const MODEL = path.join(paths.models, 'SmolLM2-135M-Instruct');
/** More logical CPUs than cores: trainers hold some for hours, and data are read meanwhile. */
const CLUSTER = ['--nodes', '2', '--cpus-per-node', '3', '--keep'];
const FLEET = 'tuned';
/** Imports take minutes of a busy machine. */
const WAIT_S = 420;
/** Below the data folder, so that what is left of temporary files is seen. */
const SCRATCH = 't';

let folder: DataFolder;
let nodes: Nodes;

/** Jobs that a failed test leaves behind: the next one has the machine for itself. */
const unfinished = new Set<string>();

interface Ended {
  readonly job: JobView;
  readonly log: string;
}

/** Submits an example as a user does, and waits for its end. */
async function submit(name: string, options: string[], ...command: string[]): Promise<Ended> {
  const began = Date.now();
  unfinished.add(name);
  const { stdout, stderr } = await folder.rankflow([
    ...['job', 'submit', '--json', '--name', name, '--working-dir', EXAMPLES],
    ...[...CLUSTER, ...options, '--', 'python', ...command],
  ]);
  unfinished.delete(name);
  const last = stdout.trim().split('\n').at(-1) ?? '';
  const log = (await folder.rankflow(['job', 'logs', name])).stdout;
  if (!last.startsWith('{')) throw new Error(`no result: ${stdout}\n${stderr}`);
  const job = JSON.parse(last) as JobView;
  show(name, { log, job, seconds: secondsSince(began) });
  return { job, log };
}

const secondsSince = (time: number): number => Math.round((Date.now() - time) / 1000);

/** What the script itself said, and its result: for the documentation. */
function show(name: string, { log, job, seconds }: Ended & { readonly seconds: number }): void {
  // Ray Train shows what a worker prints twice.
  const own = new Set(log.split('\n').filter((line) => SAID.test(line)));
  const { state, attempts, metrics, checkpoint, failure } = job;
  const result = { state, attempts: attempts.length, metrics, checkpoint, failure };
  tell([`${name}: ${seconds} s`, ...own, JSON.stringify(result)].join('\n'));
}
const SAID =
  /(?:from (?:epoch|step) \d|epoch \d+ accuracy|step \d+ of|trial |a new search|going on after|removed \d|result \{|Error: )/u;
const tell = (text: string): boolean => process.stdout.write(`${text}\n`);

const checkpoints = (job: string, ...rest: string[]): string =>
  folder.file(path.join('store/jobs', job, 'checkpoints', ...rest));
const checkpointsIn = (folderName: string): string[] =>
  filesIn(folderName).filter((name) => name.startsWith('checkpoint_2'));
/** Waits until something is in the log that the store has of a job's first attempt. */
const logged = async (job: string, pattern: RegExp, attempt = 1): Promise<true> =>
  eventually(() => {
    const log = folder.file(`store/jobs/${job}/logs/${job}-a${attempt}/000000.log`);
    return existsSync(log) && pattern.test(readFileSync(log, 'utf8'));
  }, WAIT_S);
/** Switches a node off in mid-work, and tells how long it takes until the work goes on. */
async function killUntil(node: string, goesOn: () => Promise<unknown>): Promise<void> {
  nodes.kill(node);
  const killed = Date.now();
  await goesOn();
  tell(`${node} was killed; it went on after ${secondsSince(killed)} s`);
}
/** No trainer, worker or script of a job that is over is still there. */
const settled = async (): Promise<true> =>
  eventually(
    () => processesOf(folder.home).every((command) => !WORK.test(command)),
    30,
    () => processesOf(folder.home),
  );
const WORK =
  /^ray::(?:RayTrainWorker|TrainController|SplitCoordinator|ImplicitFunc|JobSupervisor)/u;

/** Folders of Rankflow's own worker and of Torch, which makes an empty one for each user. */
const NOT_OF_JOBS = /^(?:pymp-|torchinductor[-_])/u;

/** Real Ray Train, Data and Tune on two nodes; most of the time is for the imports of their workers. */
describe('the examples of jobs', { timeout: 900_000 }, () => {
  let sharedBefore: readonly string[];
  beforeAll(async () => {
    sharedBefore = filesIn(SHARED_MEMORY);
    const environment: Record<string, string> = { RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S: '240' };
    folder = new DataFolder(environment);
    environment['TMPDIR'] = folder.file(SCRATCH);
    mkdirSync(folder.file(SCRATCH));
    nodes = new Nodes(folder, 'local', FLEET);
    await folder.rankflow(['cluster', 'up', ...CLUSTER.slice(0, 4)]);
  }, 360_000);
  afterAll(async () => {
    await settled();
    await folder.rankflow(['fleet', 'stop', FLEET], 120_000);
    await folder.rankflow(['cluster', 'down'], 120_000);
    await folder.rankflow(['down'], 120_000);
    const left = filesIn(folder.file(SCRATCH)).filter((name) => !NOT_OF_JOBS.test(name));
    const rest = { files: left, processes: processesOf(folder.home) };
    const shared = filesIn(SHARED_MEMORY).filter((name) => !sharedBefore.includes(name));
    await folder.remove(FLEET);
    expect({ ...rest, shared }).toEqual({ files: [], processes: [], shared: [] });
  }, 360_000);

  afterEach(async () => {
    for (const name of unfinished) await folder.rankflow(['job', 'stop', name]);
  }, 120_000);

  it('train with Torch on two workers, and go on from the last checkpoint when a node is killed', async () => {
    const options = ['--epochs', '10', '--pause', '3', '--interface', 'lo'];
    const running = submit('moons', [], 'torch_train.py', ...options);
    await logged('moons', /epoch 2 accuracy/u);
    await killUntil('worker-1', async () => logged('moons', /from epoch [1-9]/u));
    const { job, log } = await running;
    // Ray Train mends it below the script, which was not lost.
    expect(job, log).toMatchObject({
      state: 'succeeded',
      attempts: [{ state: 'succeeded' }],
      metrics: { epochs: 10 },
    });
    // It began again after what was reported, and not from the start.
    expect(job.metrics?.['first_epoch']).toBeGreaterThanOrEqual(2);
    expect(job.metrics?.['accuracy']).toBeGreaterThan(0.8);
    // Each worker added its shard.
    expect(filesIn(job.checkpoint ?? '')).toEqual(
      expect.arrayContaining(['model.pt', 'optimizer-0.pt', 'optimizer-1.pt']),
    );
    // The two best are kept, and the last one to go on from; nothing of what the killed worker had begun.
    const kept = checkpointsIn(checkpoints('moons', 'moons'));
    expect(job.metrics?.['kept']).toBe(kept.length);
    expect([2, 3]).toContain(kept.length);
    expect(kept).toContain(path.basename(job.checkpoint ?? ''));
    await settled();
  });

  it('boost trees on a table', async () => {
    const { job, log } = await submit('trees', [], 'xgboost_train.py');
    expect(job, log).toMatchObject({ state: 'succeeded', metrics: { rounds: 40 } });
    // Prices spread over hundreds: the mean of all is off by about 90.
    expect(job.metrics?.['rmse']).toBeLessThan(40);
    expect(filesIn(job.checkpoint ?? '')).toContain('model.ubj');
    await settled();
  });

  it('feed a trainer with shards of a table', async () => {
    const { job, log } = await submit('houses', [], 'data_train.py');
    expect(job, log).toMatchObject({ state: 'succeeded', metrics: { epoch: 14 } });
    expect(job.metrics?.['loss']).toBeLessThan(0.5);
    expect(job.metrics?.['rows_of_worker_0']).toBeGreaterThan(100);
    expect(job.metrics?.['rows_of_worker_0']).toBeLessThan(300);
    await settled();
  });

  it('fail with the reason as the result', async () => {
    const { job, log } = await submit('missing', [], 'xgboost_train.py', '--data', 'none.csv');
    expect(job, log).toMatchObject({
      state: 'failed',
      failure: { message: expect.stringContaining('attempt 1 of job missing failed') },
    });
    expect(job.failure?.message).toContain('exit code 1');
    expect(log).toMatch(/FileNotFoundError: .*none\.csv/u);
    await settled();
  });

  it('search with Tune, and go on with the search when the node of the script is killed', async () => {
    const command = ['tune_search.py', '--trials', '4', '--epochs', '4', '--pause', '2'];
    const running = submit('search', ['--num-cpus', '1'], ...command);
    const trials = (): string[] => filesIn(checkpoints('search', 'trials'));
    // In mid-trial: the third has reported once.
    await eventually(() => {
      const third = trials().length >= 3;
      const reported = trials().filter(
        (name) => checkpointsIn(checkpoints('search', 'trials', name)).length > 0,
      );
      return third && reported.length >= 3;
    }, WAIT_S);
    const { stdout } = await folder.rankflow(['job', 'status', 'search', '--json']);
    const node = (JSON.parse(stdout) as JobView).attempts[0]?.node ?? '';
    expect(node).toMatch(/^worker-[12]$/u);
    await killUntil(node, async () => logged('search', /going on after/u, 2));
    const { job, log } = await running;
    expect(job, log).toMatchObject({ state: 'succeeded', metrics: { trials: 4 } });
    expect(job.attempts.map(({ state }) => state)).toEqual(['lost', 'succeeded']);
    // What was finished is not tried again, and what was running is no trial more.
    expect(log).toMatch(/going on after [1-3] trials/u);
    expect(trials()).toHaveLength(4);
    expect(job.metrics?.['accuracy']).toBeGreaterThan(0.8);
    expect(filesIn(job.checkpoint ?? '')).toContain('model.pt');
    await settled();
  });

  it('fine-tune a model across a killed node, and answer a request file of Ray Data with it', async () => {
    const options = ['--model', MODEL, '--steps', '8', '--save-steps', '2', '--length', '32'];
    const running = submit('finetune', [], 'finetune.py', ...options);
    // The first report is complete, and there are steps to do.
    await eventually(() => {
      const known = checkpoints('finetune', 'finetune', 'checkpoint_manager_snapshot.json');
      return existsSync(known) && readFileSync(known, 'utf8').includes('checkpoint_2');
    }, WAIT_S);
    await killUntil('worker-1', async () => logged('finetune', /from step [1-9]/u));
    const { job, log } = await running;
    expect(job, log).toMatchObject({ state: 'succeeded', metrics: { steps: 8 } });
    expect(job.metrics?.['first_step']).toBeGreaterThanOrEqual(2);
    expect(checkpointsIn(checkpoints('finetune', 'finetune'))).toHaveLength(1);
    const requests = folder.file('requests.jsonl');
    const made = await submit('requests', [], 'data_to_requests.py', '--out', requests);
    expect(made.job, made.log).toMatchObject({ state: 'succeeded', metrics: { rows: 16 } });
    const out = folder.file('answers.jsonl');
    const { exitCode, stderr } = await folder.rankflow([
      ...['run', requests, '--model', job.checkpoint ?? '', '--fleet', FLEET, '--keep'],
      ...['--max-model-len', '512', '--cpus-per-engine', '1', '--out', out],
    ]);
    expect(exitCode, stderr).toBe(0);
    const answers = readLines(out) as ResultLine[];
    expect(answers).toHaveLength(16);
    for (const { custom_id: id, response } of answers) {
      expect(response?.body.choices[0]?.message.content.trim(), id).not.toBe('');
    }
    tell(
      answers
        .slice(0, 2)
        .map((one) => JSON.stringify(one))
        .join('\n'),
    );
    await settled();
  });
});
