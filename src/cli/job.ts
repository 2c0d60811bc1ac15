import { type Command, InvalidArgumentError } from 'commander';

import type { JobView } from '../client/jobs.js';
import { addJobOptions, jobFlagOf, toJobOptions, type JobFlags } from './job-options.js';

interface SubmitFlags extends JobFlags {
  readonly detach?: boolean;
  readonly json?: boolean;
  /** False with `--no-start`. */
  readonly start: boolean;
}

/** `rankflow job submit|status|logs|stop|list`. */
export function register(program: Command): void {
  const job = program.command('job').description('Ray jobs: submit, status, logs, stop, list');
  const submitting = job
    .command('submit')
    .description('run a script on a Ray cluster until it has succeeded; prints its id')
    .argument('<entrypoint...>', 'command, after --')
    .option('--detach', 'do not wait for its end')
    .option('--json', 'print events as JSON lines')
    .option('--no-start', 'do not start Temporal and the workers on this machine');
  addJobOptions(submitting);
  submitting.addHelpText(
    'after',
    `
Ctrl-C detaches: the job goes on. The same command again attaches to it, tells that it has succeeded, or goes on
from its checkpoints when it failed.

Exit codes: 0 succeeded, 1 failed, stopped or out of time, 2 bad usage, 3 infrastructure cannot be reached, 130
detached.`,
  );
  submitting.action(submit);
  job
    .command('status')
    .description('show a job and its attempts')
    .argument('<job-id>')
    .option('--json', 'print it as JSON')
    .action(status);
  job
    .command('logs')
    .description('print the log of a job; it outlives the cluster')
    .argument('<job-id>')
    .option('--attempt <n>', 'of this attempt (default: of all)', positive)
    .option('-f, --follow', 'go on until the job has ended')
    .option('--store <folder>', 'where to look when Temporal does not know the job')
    .option('--json', 'print JSON lines with attempt and text')
    .action(logs);
  job
    .command('stop')
    .description('end a job: SIGTERM, and SIGKILL after its grace period')
    .argument('<job-id>')
    .option('--json', 'print what became of it as JSON')
    .action(stop);
  job
    .command('list')
    .description('show the newest jobs')
    .option('--limit <n>', 'at most so many', positive, 20)
    .option('--json', 'print them as JSON')
    .action(list);
}

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('Expected 1 or more.');
  return value;
}

async function submit(entrypoint: string[], flags: SubmitFlags): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { EXIT } = await import('../client/errors.js');
  const { prepareJob } = await import('../client/job-spec.js');
  const { isKept, jobView, startJob } = await import('../client/jobs.js');
  const { followJob } = await import('./job-follow.js');
  const { isMissing, noSuchCluster, startStackUnless } = await import('./prepare.js');
  const { print, printJson, say } = await import('./output.js');

  const prepared = await prepareJob(toJobOptions(entrypoint, flags), jobFlagOf);
  await startStackUnless(!flags.start);
  await withClient(async (client) => {
    const { spec } = prepared;
    const missing = await isMissing(client, spec.cluster, flags);
    if (missing && !(await isKept(client, spec.jobId))) throw noSuchCluster(spec.cluster.name);
    const { jobId, outcome } = await startJob(client, prepared);
    if (flags.json) printJson({ event: outcome, jobId });
    else print(jobId);
    say(OUTCOME[outcome]);
    if (outcome === 'finished') {
      await conclude(await jobView(client, jobId), flags.json ?? false);
      return;
    }
    if (flags.detach) return;
    const last = await followJob(client, jobId, {
      changed: (view) => {
        if (flags.json) printJson({ event: 'progress', ...view });
        else say(stateLine(view));
      },
      log: (data) => {
        if (!flags.json) process.stderr.write(data);
      },
    });
    if (last !== undefined) {
      await conclude(last, flags.json ?? false);
      return;
    }
    say(`Detached. The job ${jobId} goes on.`);
    say(`  watch it:  rankflow job logs -f ${jobId}`);
    say(`  stop it:   rankflow job stop ${jobId}`);
    process.exitCode = EXIT.interrupted;
  });
}

const OUTCOME = {
  started: 'Started. Ctrl-C detaches, the job goes on.',
  continued: 'Going on from what an earlier try left. Ctrl-C detaches.',
  attached: 'Attached to the job that goes on. Ctrl-C detaches.',
  finished: 'This job has succeeded: it is not run again. Repeat it with --new.',
} as const;

function stateLine({ state, attempts, problem }: JobView): string {
  const attempt = attempts.at(-1)?.attempt;
  const which = attempt === undefined || attempt === 1 ? '' : `, attempt ${attempt}`;
  return `[${state}${which}]${problem === undefined ? '' : ` ${problem}`}`;
}

/** Says how a job ended and sets the exit code. */
async function conclude(view: JobView, json: boolean): Promise<void> {
  const { EXIT } = await import('../client/errors.js');
  const { jobText } = await import('./job-text.js');
  const { printJson, say } = await import('./output.js');
  const failed = view.failure?.exitCode ?? EXIT.failed;
  process.exitCode = view.state === 'succeeded' ? EXIT.ok : failed;
  if (json) printJson({ event: 'result', ...view });
  else say(jobText(view));
}

async function status(id: string, { json }: { readonly json?: boolean }): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { EXIT } = await import('../client/errors.js');
  const { jobIdOf } = await import('../client/job-spec.js');
  const { jobView } = await import('../client/jobs.js');
  const { jobText } = await import('./job-text.js');
  const { print, printJson } = await import('./output.js');

  const view = await withClient(async (client) => jobView(client, jobIdOf(id)));
  if (view.failure !== undefined) process.exitCode = EXIT.failed;
  if (json) printJson(view);
  else print(jobText(view));
}

interface LogFlags {
  readonly attempt?: number;
  readonly follow?: boolean;
  readonly store?: string;
  readonly json?: boolean;
}

async function logs(id: string, flags: LogFlags): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { ClientError, EXIT } = await import('../client/errors.js');
  const { afterLog, readAttemptLog, storedAttempts } = await import('../client/job-logs.js');
  const { jobIdOf } = await import('../client/job-spec.js');
  const { followJob } = await import('./job-follow.js');
  const { printJson } = await import('./output.js');

  const jobId = jobIdOf(id);
  const show = (data: Buffer, attempt: number): void => {
    if (flags.json) printJson({ attempt, text: data.toString('utf8') });
    else process.stdout.write(data);
  };
  if (flags.follow) {
    await withClient(async (client) => {
      const from = flags.attempt ?? 1;
      const last = await followJob(client, jobId, { changed: () => {}, log: show }, from);
      if (last === undefined) process.exitCode = EXIT.interrupted;
    });
    return;
  }
  const store = flags.store ?? (await storeOf(jobId));
  const place = { store, jobId };
  const attempts = await storedAttempts(place);
  const wanted = attempts.filter((one) => flags.attempt === undefined || one === flags.attempt);
  if (wanted.length === 0) {
    const which = flags.attempt === undefined ? 'no log' : `no log of attempt ${flags.attempt}`;
    throw new ClientError('NotFound', `There is ${which} of job ${jobId} in ${store}.`, {
      wayOut: 'See `rankflow job list`; --store names another store.',
    });
  }
  for (const attempt of wanted) {
    const end = await readAttemptLog(place, attempt, 0, (data) => show(data, attempt));
    const message = await afterLog(place, attempt, end);
    if (message !== undefined) show(Buffer.from(message), attempt);
  }
}

/** The store of a job; the data folder's when nobody can be asked. */
async function storeOf(jobId: string): Promise<string> {
  const { withClient } = await import('../client/connection.js');
  const { describeFailure } = await import('../client/errors.js');
  const { jobView } = await import('../client/jobs.js');
  const { paths } = await import('../setup/paths.js');
  try {
    return (await withClient(async (client) => jobView(client, jobId))).store || paths.store;
  } catch (error) {
    const { type } = describeFailure(error);
    if (type === 'NotFound' || type === 'Unreachable') return paths.store;
    throw error;
  }
}

async function stop(id: string, { json }: { readonly json?: boolean }): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { jobIdOf } = await import('../client/job-spec.js');
  const { stopJob } = await import('../client/jobs.js');
  const { print, printJson, say } = await import('./output.js');

  const jobId = jobIdOf(id);
  const stopping = await withClient(async (client) => stopJob(client, jobId));
  if (json) printJson({ jobId, stopping });
  else print(jobId);
  say(stopping ? `Stopping. See: rankflow job status ${jobId}` : 'The job had ended already.');
}

async function list({
  limit,
  json,
}: {
  readonly limit: number;
  readonly json?: boolean;
}): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { listJobs } = await import('../client/jobs.js');
  const { jobTable } = await import('./job-text.js');
  const { print, printJson, say } = await import('./output.js');

  const jobs = await withClient(async (client) => listJobs(client, limit));
  if (json) printJson(jobs);
  else if (jobs.length === 0) say('There are no jobs yet. Start one: rankflow job submit -- CMD');
  else print(jobTable(jobs));
}
