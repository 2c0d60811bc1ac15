import type { Command } from 'commander';

import { ClientError } from '../client/errors.js';
import type { ScheduleDefinition, ScheduleView, Triggered } from '../client/schedules.js';
import type { SchedulePolicies } from '../contracts/schedule.js';
import {
  addGenerationOptions,
  addInputOptions,
  addModelOptions,
  addPlacementOptions,
  type RunFlags,
} from './run-options.js';
import { addScheduleOptions, type ScheduleFlags } from './schedule-options.js';

interface Json {
  readonly json?: boolean;
}

type CreateFlags = Omit<RunFlags, 'deadline' | 'runId'> &
  ScheduleFlags &
  Json & { readonly paused?: boolean; readonly note?: string };

const JSON_FLAG = ['--json', 'print what became of it as JSON'] as const;

/** `rankflow schedule create|list|show|update|trigger|pause|resume|backfill|delete`. */
export function register(program: Command): void {
  const schedule = program
    .command('schedule')
    .description('runs at set times: create, list, show, update, trigger, backfill, …');
  const create = addScheduleOptions(
    schedule
      .command('create')
      .description('start a run of an input with a date in its name at set times')
      .argument('<name>'),
  )
    .option('--paused', 'do not start before it is resumed')
    .option('--note <text>', 'for people, shown with the schedule')
    .option(...JSON_FLAG);
  addPlacementOptions(addGenerationOptions(addInputOptions(addModelOptions(create))));
  create.addHelpText(
    'after',
    `
Patterns hold {date}, {yesterday}, {year}, {month}, {day}, {hour}, {minute}, {second} and {schedule}; {output} also
{runId}. They are of the time that a run is for, in the time zone of the schedule, however late the run starts.`,
  );
  create.action(createOne);

  schedule
    .command('list')
    .description('show all schedules')
    .option('--json', 'print them as JSON')
    .action(list);
  schedule
    .command('show')
    .description('show a schedule, its last and its next runs')
    .argument('<name>')
    .option('--json', 'print it as JSON')
    .action(show);
  addScheduleOptions(
    schedule
      .command('update')
      .description('change when, from what and to where; not the model')
      .argument('<name>')
      .option('--engines <n>', 'engines to keep up', Number),
  )
    .option(...JSON_FLAG)
    .action(update);
  schedule
    .command('trigger')
    .description('start the run of today now; one that is there already is left as it is')
    .argument('<name>')
    .option('--overlap <policy>', 'another policy for this start than the own one of the schedule')
    .option(...JSON_FLAG)
    .action(trigger);
  schedule
    .command('pause')
    .description('start no more runs')
    .argument('<name>')
    .option('--note <text>', 'why, for people')
    .option(...JSON_FLAG)
    .action(async (name: string, flags: PauseFlags) => pauseOrResume(name, flags, true));
  schedule
    .command('resume')
    .description('start runs again')
    .argument('<name>')
    .option('--note <text>', 'why, for people')
    .option(...JSON_FLAG)
    .action(async (name: string, flags: PauseFlags) => pauseOrResume(name, flags, false));
  schedule
    .command('backfill')
    .description('start the runs that were due between two days or times')
    .argument('<name>')
    .requiredOption('--from <when>', 'the first day, 2026-01-31, or time with its zone')
    .requiredOption('--to <when>', 'the last day, all of it, or time with its zone')
    .option('--overlap <policy>', 'one after the other by default: buffer-all')
    .option(...JSON_FLAG)
    .action(backfill);
  schedule
    .command('delete')
    .description('remove a schedule; its runs and their results stay')
    .argument('<name>')
    .option(...JSON_FLAG)
    .action(remove);
}

async function createOne(name: string, flags: CreateFlags): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { prepareTemplate } = await import('../client/inference.js');
  const { checkSchedule, createSchedule } = await import('../client/schedules.js');
  const { print, printJson, say } = await import('./output.js');
  const { checkUp, hasToBeUp } = await import('./prepare.js');
  const { flagOf, toRunOptions } = await import('./run-options.js');
  const { applyFlags, scheduleFlagOf } = await import('./schedule-options.js');

  const { deadline: _own, runId: _pattern, ...runFlags } = flags;
  const inference = await prepareTemplate(toRunOptions(flags.input ?? '', runFlags), flagOf);
  const timeZone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const { cluster } = inference;
  const onRunningCluster = flags.nodes === undefined && cluster.nodes.provider === 'local';
  const needsCluster = hasToBeUp(cluster, flags);
  const base = {
    ...{ schedule: name, inference, onRunningCluster, timing: { timeZone } },
    ...(needsCluster && { needsCluster }),
  };
  const definition = checkSchedule(
    applyFlags(absolute(flags), { run: base, policies: {} }),
    scheduleFlagOf,
  );
  const { paused = false, note } = flags;
  const view = await withClient(async (client) => {
    await checkUp(client, cluster, flags);
    return createSchedule(client, definition, { paused, ...(note !== undefined && { note }) });
  });
  if (flags.json) printJson(view);
  else print(name);
  say(view.paused ? 'It is paused.' : `The next run: ${nextText(view)}`);
}

/** Workers read and write in folders of their own. */
function absolute<T extends ScheduleFlags>(flags: T): T {
  const whole = (pattern: string | undefined): { input?: string } | undefined =>
    pattern === undefined || pattern.includes('://') || pattern.startsWith('/')
      ? undefined
      : { input: `${process.cwd()}/${pattern}` };
  const output = whole(flags.output)?.input;
  return { ...flags, ...whole(flags.input), ...(output !== undefined && { output }) };
}

async function list({ json }: Json): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { listSchedules } = await import('../client/schedules.js');
  const { print, printJson, say, table } = await import('./output.js');

  const views = await withClient(listSchedules);
  if (json) printJson(views);
  else if (views.length === 0) say('There are no schedules. See: rankflow schedule create --help');
  else {
    const rows = views.map((view) => [
      ...[view.name, view.paused ? 'paused' : 'active', whenText(view), nextText(view)],
      ...[view.recent.at(-1)?.runId ?? '', String(view.running)],
    ]);
    print(table([['schedule', 'state', 'when', 'next', 'last run', 'running'], ...rows]));
  }
}

async function show(name: string, { json }: Json): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { describeSchedule } = await import('../client/schedules.js');
  const { print, printJson } = await import('./output.js');

  const view = await withClient(async (client) => describeSchedule(client, name));
  if (json) printJson(view);
  else print(await viewText(view));
}

async function update(
  name: string,
  flags: ScheduleFlags & Json & { readonly engines?: number },
): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { checkSchedule, updateSchedule } = await import('../client/schedules.js');
  const { print, printJson, say } = await import('./output.js');
  const { applyFlags, scheduleFlagOf } = await import('./schedule-options.js');

  const change = ({ run, policies }: ScheduleDefinition): ScheduleDefinition => {
    const { engines = run.inference.fleet.engines } = flags;
    const fleet = { ...run.inference.fleet, engines };
    const before = { ...run, inference: { ...run.inference, fleet } };
    return checkSchedule(applyFlags(absolute(flags), { run: before, policies }), scheduleFlagOf);
  };
  const view = await withClient(async (client) => updateSchedule(client, name, change));
  if (flags.json) printJson(view);
  else print(name);
  say(`The next run: ${nextText(view)}`);
}

async function trigger(
  name: string,
  { overlap, json }: Json & { readonly overlap?: string },
): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { describeSchedule, triggerSchedule } = await import('../client/schedules.js');
  const { occurrenceOf } = await import('../occurrence.js');
  const { print, printJson, say } = await import('./output.js');

  const policy = overlapOf(overlap, await policies());
  const { view, outcome } = await withClient(async (client) => ({
    outcome: await triggerSchedule(client, name, policy),
    view: await describeSchedule(client, name),
  }));
  const { state } = outcome;
  const { runId } = state === 'started' ? outcome.started : occurrenceOf(view.run, new Date());
  const told = state === 'skipped' ? {} : { runId };
  if (json) printJson({ name, ...told, state });
  else if (state !== 'skipped') print(runId);
  say(triggeredText(state, runId, policy ?? view.policies.overlap, view));
}

/** What became of a trigger, for people. */
export function triggeredText(
  state: Triggered['state'],
  runId: string,
  policy: SchedulePolicies['overlap'],
  { name, run }: Pick<ScheduleView, 'name' | 'run'>,
): string {
  if (state === 'started') return `Triggered. Watch it: rankflow watch ${runId}`;
  if (state === 'skipped') {
    return policy === 'skip'
      ? 'Nothing is started: a run goes on, and the policy is to skip then.'
      : `Nothing is started: a run goes on, and by the policy ${policy} no more may wait than do.`;
  }
  const exact = !/\{(?:hour|minute|second)\}/u.test(run.runId);
  const otherwise = exact ? '' : ', or with another time';
  const see = `rankflow schedule show ${name}`;
  return state === 'waiting'
    ? `It starts after the run that goes on, as ${runId}${otherwise}: see ${see}`
    : `Temporal was asked to start it as ${runId}${otherwise}, and has not yet: see ${see}`;
}

const policies = async () => (await import('../contracts/schedule.js')).SchedulePolicies;

function overlapOf(
  text: string | undefined,
  { shape }: Awaited<ReturnType<typeof policies>>,
): SchedulePolicies['overlap'] | undefined {
  if (text === undefined) return undefined;
  const { data } = shape.overlap.safeParse(text);
  if (data === undefined) throw new ClientError('Usage', `--overlap: ${text} is no overlap policy`);
  return data;
}

interface PauseFlags extends Json {
  readonly note?: string;
}

async function pauseOrResume(
  name: string,
  { note, json }: PauseFlags,
  pause: boolean,
): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { pauseSchedule, resumeSchedule } = await import('../client/schedules.js');
  const { print, printJson, say } = await import('./output.js');

  await withClient(async (client) => (pause ? pauseSchedule : resumeSchedule)(client, name, note));
  if (json) printJson({ name, paused: pause });
  else print(name);
  say(pause ? 'It starts no more runs until it is resumed.' : 'It starts runs again.');
}

/** What becomes of times that are all due at once. */
const BACKFILLED: Readonly<Record<SchedulePolicies['overlap'], string>> = {
  'buffer-all': 'will be run, one after the other',
  'buffer-one': 'will be run, but of what has to wait only one',
  skip: 'is started, but for what would have to wait',
  'cancel-other': 'is started, and each start cancels the one before',
  'terminate-other': 'is started, and each start terminates the one before',
  'allow-all': 'is started, all of it at once',
};

async function backfill(
  name: string,
  { from, to, overlap, json }: Json & { from: string; to: string; overlap?: string },
): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { backfillSchedule, describeSchedule } = await import('../client/schedules.js');
  const { momentIn } = await import('../occurrence.js');
  const { print, printJson, say } = await import('./output.js');

  const policy = overlapOf(overlap, await policies());
  const range = await withClient(async (client) => {
    const { run } = await describeSchedule(client, name);
    const { timeZone } = run.timing;
    const moment = (flag: string, text: string, end: 'start' | 'end'): Date => {
      const found = momentIn(text, timeZone, end);
      if (found !== undefined) return found;
      const expected = 'neither a day such as 2026-01-31 nor a time with its zone';
      throw new ClientError('Usage', `${flag}: ${text} is ${expected}`);
    };
    const [now, end] = [new Date(), moment('--to', to, 'end')];
    // Of today, what was due so far.
    const today = end > now && moment('--to', to, 'start') <= now;
    const asked = { from: moment('--from', from, 'start'), to: today ? now : end };
    await backfillSchedule(client, name, { ...asked, ...(policy && { overlap: policy }) });
    return { from: asked.from.toISOString(), to: asked.to.toISOString() };
  });
  if (json) printJson({ name, ...range });
  else print(name);
  say(`What was due from ${range.from} to ${range.to} ${BACKFILLED[policy ?? 'buffer-all']}.`);
}

async function remove(name: string, { json }: Json): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { deleteSchedule } = await import('../client/schedules.js');
  const { print, printJson, say } = await import('./output.js');

  await withClient(async (client) => deleteSchedule(client, name));
  if (json) printJson({ name, deleted: true });
  else print(name);
  say('The schedule is gone; its runs and their results stay.');
}

const nextText = ({ next, paused }: ScheduleView): string =>
  paused ? 'none while paused' : (next[0] ?? 'none');

function whenText({ run: { timing } }: ScheduleView): string {
  const { cron, at, on, timeZone } = timing;
  const times = at.map((time) =>
    on.length === 0 ? `at ${time}` : `at ${time} on ${on.join(',')}`,
  );
  return `${[...cron, ...times].join(' and ')} (${timeZone})`;
}

async function viewText(view: ScheduleView): Promise<string> {
  const { durationText } = await import('../client/duration.js');
  const { receiverOf } = await import('../text.js');
  const { run, policies: rules, note, recent, next, missed, skipped } = view;
  const { overlap, catchUpSeconds, pauseOnFailure } = rules;
  const wait = run.waitForInputSeconds;
  const { keepLast, keepDays } = run.retention ?? {};
  return [
    `${view.name}: ${view.paused ? 'paused' : 'active'}${note ? ` (${note})` : ''}`,
    `  when        ${whenText(view)}, jitter ${durationText(run.timing.jitterSeconds)}`,
    `  overlap     ${overlap}, catches up ${durationText(catchUpSeconds)}`,
    ...(pauseOnFailure ? ['  on failure  pauses'] : []),
    `  input       ${run.input}`,
    `  no input    ${wait > 0 ? `waits ${durationText(wait)}, then ` : ''}${run.noInput === 'skip' ? 'skips' : 'fails'}`,
    ...(run.output === undefined ? [] : [`  output      ${run.output}`]),
    `  run id      ${run.runId}`,
    `  model       ${run.inference.run.model.model}`,
    ...(run.deadlineSeconds ? [`  deadline    ${durationText(run.deadlineSeconds)}`] : []),
    ...(keepLast ? [`  keeps       the newest ${keepLast}`] : []),
    ...(keepDays ? [`  keeps       ${keepDays} days`] : []),
    ...run.notify.map((to) => `  tells       ${receiverOf(to)}`),
    `  missed      ${missed}, skipped ${skipped}, running ${view.running}`,
    ...recent.map((one) => `  last        ${one.nominal} ${one.runId}, started ${one.startedAt}`),
    ...next.slice(0, 3).map((time) => `  next        ${time}`),
  ].join('\n');
}
