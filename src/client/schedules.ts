import { setTimeout } from 'node:timers/promises';

import {
  type Client,
  type ScheduleDescription,
  type ScheduleHandle,
  ScheduleNotFoundError,
  ScheduleAlreadyRunning,
  type ScheduleSpec,
} from '@temporalio/client';
import type { ScheduleOverlapPolicy } from '@temporalio/client';

import { CONTROL_QUEUE, WORKFLOW, scheduleId, scheduledWorkflowId } from '../contracts/names.js';
import { ScheduledRun, SchedulePolicies, type ScheduleTiming } from '../contracts/schedule.js';
import { hasLooseBrace, isTimeZone, occurrenceOf, unknownPlaceholders } from '../occurrence.js';
import { shortName } from '../text.js';
import { startAttributes } from './attributes.js';
import { ClientError } from './errors.js';
import type { OptionName } from './inference.js';

/** Everything about a schedule that its owner decides. */
export interface ScheduleDefinition {
  readonly run: ScheduledRun;
  readonly policies: SchedulePolicies;
}

/** A schedule as it is shown. Times are ISO 8601. */
export interface ScheduleView {
  readonly name: string;
  readonly paused: boolean;
  readonly note?: string;
  readonly run: ScheduledRun;
  readonly policies: SchedulePolicies;
  readonly next: readonly string[];
  /** The newest last. */
  readonly recent: readonly StartedOccurrence[];
  readonly running: number;
  readonly taken: number;
  /** Not started because the catch-up window was over. */
  readonly missed: number;
  readonly skipped: number;
}

export interface StartedOccurrence {
  readonly runId: string;
  readonly nominal: string;
  readonly startedAt: string;
  readonly workflowId: string;
}

const OVERLAP: Readonly<Record<SchedulePolicies['overlap'], ScheduleOverlapPolicy>> = {
  skip: 'SKIP',
  'buffer-one': 'BUFFER_ONE',
  'buffer-all': 'BUFFER_ALL',
  'cancel-other': 'CANCEL_OTHER',
  'terminate-other': 'TERMINATE_OTHER',
  'allow-all': 'ALLOW_ALL',
};
const DAYS = {
  sun: 'SUNDAY',
  mon: 'MONDAY',
  tue: 'TUESDAY',
  wed: 'WEDNESDAY',
  thu: 'THURSDAY',
  fri: 'FRIDAY',
  sat: 'SATURDAY',
} as const;

/**
 * Checks what a user asks for.
 *
 * @param nameOf names an option in a message: gets a path such as `run.timing.cron`
 * @throws ClientError `Usage` with all problems at once
 */
export function checkSchedule(
  definition: { readonly run: unknown; readonly policies: unknown },
  nameOf: OptionName = (name) => name,
): ScheduleDefinition {
  const run = ScheduledRun.safeParse(definition.run);
  const policies = SchedulePolicies.safeParse(definition.policies);
  const problems = [
    ...(run.error?.issues ?? []).map(({ path, message }) => ({ path: ['run', ...path], message })),
    ...(policies.error?.issues ?? []).map(({ path, message }) => ({
      path: ['policies', ...path],
      message,
    })),
  ].map(({ path, message }) => `${nameOf(path.join('.'))}: ${message}`);
  if (run.data !== undefined) problems.push(...contradictions(run.data, nameOf));
  if (problems.length > 0 || !run.success || !policies.success) {
    throw new ClientError('Usage', problems.join('\n'));
  }
  return { run: run.data, policies: policies.data };
}

function contradictions(run: ScheduledRun, nameOf: OptionName): string[] {
  const { timing, input, output, runId, retention } = run;
  const problems: string[] = [];
  if (timing.cron.length + timing.at.length === 0) {
    problems.push(`${nameOf('run.timing.cron')}: say when: a cron line, or a time of day`);
  }
  if (timing.on.length > 0 && timing.at.length === 0) {
    problems.push(`${nameOf('run.timing.on')}: days need a time of day`);
  }
  if (!isTimeZone(timing.timeZone)) {
    problems.push(`${nameOf('run.timing.timeZone')}: ${timing.timeZone} is no time zone`);
  }
  for (const [name, pattern] of Object.entries({ input, output, runId })) {
    for (const unknown of unknownPlaceholders(pattern ?? '')) {
      problems.push(`${nameOf(`run.${name}`)}: {${unknown}} is not known`);
    }
    if (hasLooseBrace(pattern ?? '')) {
      problems.push(`${nameOf(`run.${name}`)}: a brace of ${pattern} has no other`);
    }
  }
  if (runId.includes('{runId}')) problems.push(`${nameOf('run.runId')}: {runId} is itself`);
  if (output !== undefined && !/\{(?:runId|date|day)\}/u.test(output)) {
    problems.push(`${nameOf('run.output')}: holds no {date}, so each run would replace the last`);
  }
  if (retention !== undefined && Object.keys(retention).length === 0) {
    problems.push(`${nameOf('run.retention.keepLast')}: say how many, or how many days`);
  }
  return problems;
}

/**
 * Creates a schedule.
 *
 * @throws ClientError `Usage` when there is one of this name, Temporal refuses its times, or two of its next runs
 *   would have the same id
 */
export async function createSchedule(
  client: Client,
  definition: ScheduleDefinition,
  { paused = false, note }: { readonly paused?: boolean; readonly note?: string } = {},
): Promise<ScheduleView> {
  const name = definition.run.schedule;
  const state = { paused, ...(note !== undefined && { note }) };
  const options = { scheduleId: scheduleId(name), ...(await optionsOf(client, definition)), state };
  const handle = await client.schedule.create(options).catch((error: unknown) => {
    if (error instanceof ScheduleAlreadyRunning) {
      throw new ClientError('Usage', `There is a schedule ${name} already.`, {
        wayOut: 'Change it with `rankflow schedule update`, or give another name.',
      });
    }
    throw refused(error);
  });
  const view = viewOf(name, await handle.describe());
  const clash = clashOf(view);
  if (clash === undefined) return view;
  await handle.delete();
  throw clash;
}

/** Two runs of one id are one run: that is meant for a trigger, not for the schedule's own times. */
function clashOf({ run, next }: ScheduleView): ClientError | undefined {
  const ids = next.map((time) => occurrenceOf(run, new Date(time)).runId);
  const twice = ids.find((id, index) => ids.indexOf(id) !== index);
  if (twice === undefined) return undefined;
  return new ClientError(
    'Usage',
    `Two of its next runs would both be ${twice}, that is, one run.`,
    {
      wayOut: 'Add {hour} (and {minute}) to the run id.',
    },
  );
}

/** What was asked for is not valid, for example a cron line: the SDK's TypeError, or gRPC code 3. */
function refused(error: unknown): unknown {
  if (error instanceof TypeError) {
    return new ClientError('Usage', `The schedule is refused: ${error.message}`, { cause: error });
  }
  const cause = error instanceof Error ? (error.cause ?? error) : error;
  const { code, details } = (cause ?? {}) as { code?: unknown; details?: unknown };
  if (code !== 3) return error;
  return new ClientError('Usage', `Temporal refuses the schedule: ${String(details)}`, {
    cause: error,
  });
}

async function optionsOf(client: Client, { run, policies }: ScheduleDefinition) {
  const values = { schedule: run.schedule, state: 'validating' };
  return {
    spec: specOf(run.timing),
    policies: {
      overlap: OVERLAP[policies.overlap],
      catchupWindow: policies.catchUpSeconds * 1000,
      pauseOnFailure: policies.pauseOnFailure,
    },
    action: {
      type: 'startWorkflow' as const,
      workflowType: WORKFLOW.scheduledRun,
      workflowId: scheduledWorkflowId(run.schedule),
      taskQueue: CONTROL_QUEUE,
      args: [run],
      staticSummary: `${shortName(run.inference.run.model.model)}, schedule ${run.schedule}`,
      staticDetails: `Input \`${run.input}\`, fleet \`${run.inference.fleet.name}\`, store \`${run.inference.run.store}\``,
      ...(await startAttributes(client, values)),
    },
  };
}

function specOf({ cron, at, on, timeZone, jitterSeconds }: ScheduleTiming): ScheduleSpec {
  const calendars = at.map((time) => {
    const [hour = 0, minute = 0] = time.split(':').map(Number);
    return { hour, minute, ...(on.length > 0 && { dayOfWeek: on.map((day) => DAYS[day]) }) };
  });
  return {
    cronExpressions: cron,
    calendars,
    timezone: timeZone,
    jitter: jitterSeconds * 1000,
  };
}

function viewOf(name: string, description: ScheduleDescription): ScheduleView {
  const { action, policies, state, info } = description;
  const [run] = action.args as unknown as [ScheduledRun];
  const overlap = (Object.keys(OVERLAP) as SchedulePolicies['overlap'][]).find(
    (key) => OVERLAP[key] === policies.overlap,
  );
  return {
    name,
    paused: state.paused,
    ...(state.note && { note: state.note }),
    run,
    policies: {
      overlap: overlap ?? 'skip',
      catchUpSeconds: policies.catchupWindow / 1000,
      pauseOnFailure: policies.pauseOnFailure,
    },
    next: info.nextActionTimes.map((time) => time.toISOString()),
    recent: info.recentActions.map(({ takenAt, action: { workflow } }) => {
      const nominal = nominalOf(workflow.workflowId) ?? takenAt;
      return {
        runId: occurrenceOf(run, nominal).runId,
        nominal: nominal.toISOString(),
        startedAt: takenAt.toISOString(),
        workflowId: workflow.workflowId,
      };
    }),
    running: info.runningActions.length,
    taken: info.numActionsTaken,
    missed: info.numActionsMissedCatchupWindow,
    skipped: info.numActionsSkippedOverlap,
  };
}

/** Temporal puts the time that a start is for at the end of its workflow's id. */
function nominalOf(workflowId: string): Date | undefined {
  const time = Date.parse(/-(\d{4}-\d\d-\d\dT[\d:.]+Z)$/u.exec(workflowId)?.[1] ?? '');
  return Number.isNaN(time) ? undefined : new Date(time);
}

/** A schedule. @throws ClientError `NotFound` */
export async function describeSchedule(client: Client, name: string): Promise<ScheduleView> {
  return onSchedule(client, name, async (handle) => viewOf(name, await handle.describe()));
}

/** All schedules, by name. */
export async function listSchedules(client: Client): Promise<ScheduleView[]> {
  const names: string[] = [];
  for await (const { scheduleId: id } of client.schedule.list()) {
    if (id.startsWith(scheduleId(''))) names.push(id.slice(scheduleId('').length));
  }
  const views = await Promise.all(
    // Lists lag behind: one that was just deleted may be among them.
    names.map((name) => describeSchedule(client, name).catch(() => undefined)),
  );
  return views.filter((view) => view !== undefined).toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

/**
 * Changes a schedule; runs that go on keep what they were started with.
 *
 * @param change gets what is there
 * @throws ClientError `NotFound`, `Usage`
 */
export async function updateSchedule(
  client: Client,
  name: string,
  change: (before: ScheduleDefinition) => ScheduleDefinition,
): Promise<ScheduleView> {
  return onSchedule(client, name, async (handle) => {
    const before = viewOf(name, await handle.describe());
    const wanted = await optionsOf(client, change(before));
    const write = async (options: typeof wanted): Promise<void> =>
      handle
        .update(({ state }) => ({ ...options, state }))
        .catch((error: unknown) => {
          throw refused(error);
        });
    await write(wanted);
    const view = viewOf(name, await handle.describe());
    const clash = clashOf(view);
    if (clash === undefined) return view;
    await write(await optionsOf(client, before));
    throw clash;
  });
}

/** What became of a trigger while it was looked at. */
export type Triggered =
  | { readonly state: 'started'; readonly started: StartedOccurrence }
  /** A run goes on: this start comes after it (`waiting`), or not at all. */
  | { readonly state: 'waiting' | 'skipped' }
  /** No run goes on, and the server has not started this one yet. */
  | { readonly state: 'asked' };

/** The server starts what is due within a second, on a busy machine in a few. */
const TRIGGERED_MS = 5_000;
const LOOK_MS = 200;

/**
 * Starts a run now, for the present time, by the server's clock. A run of the same id that is there already is left as
 * it is.
 *
 * @param overlap default: what the schedule itself does while a run goes on
 */
export const triggerSchedule = async (
  client: Client,
  name: string,
  overlap?: SchedulePolicies['overlap'],
): Promise<Triggered> =>
  onSchedule(client, name, async (handle) => {
    const before = viewOf(name, await handle.describe());
    await handle.trigger(OVERLAP[overlap ?? before.policies.overlap]);
    const until = Date.now() + TRIGGERED_MS;
    for (;;) {
      const after = viewOf(name, await handle.describe());
      const found = newIn(before, after);
      if (found !== undefined) return found;
      if (Date.now() > until) return { state: after.running > 0 ? 'waiting' : 'asked' };
      await setTimeout(LOOK_MS);
    }
  });

function newIn(before: ScheduleView, after: ScheduleView): Triggered | undefined {
  const known = new Set(before.recent.map((one) => `${one.workflowId} ${one.startedAt}`));
  const started = after.recent.find((one) => !known.has(`${one.workflowId} ${one.startedAt}`));
  if (started !== undefined) return { state: 'started', started };
  return after.skipped > before.skipped ? { state: 'skipped' } : undefined;
}

export const pauseSchedule = async (client: Client, name: string, note?: string): Promise<void> =>
  onSchedule(client, name, async (handle) => handle.pause(note));

export const resumeSchedule = async (client: Client, name: string, note?: string): Promise<void> =>
  onSchedule(client, name, async (handle) => handle.unpause(note));

/**
 * Has the runs started that were due between two times, both included.
 *
 * @param overlap default: one after the other
 * @throws ClientError `Usage` when the second is before the first, or has yet to come
 */
export async function backfillSchedule(
  client: Client,
  name: string,
  {
    from,
    to,
    overlap = 'buffer-all',
  }: {
    readonly from: Date;
    readonly to: Date;
    readonly overlap?: SchedulePolicies['overlap'];
  },
): Promise<void> {
  if (to < from) {
    const range = `${from.toISOString()} to ${to.toISOString()}`;
    throw new ClientError('Usage', `${range} is no range: the end is before its beginning.`);
  }
  if (to.getTime() > Date.now()) {
    throw new ClientError('Usage', `${to.toISOString()} has yet to come: nothing is due then.`, {
      wayOut: 'Name an end that has passed; the schedule itself starts what comes.',
    });
  }
  // The server counts what is after the start.
  const start = new Date(from.getTime() - 1);
  await onSchedule(client, name, async (handle) =>
    handle.backfill({ start, end: to, overlap: OVERLAP[overlap] }),
  );
}

/** Removes a schedule; runs that go on are left alone. */
export const deleteSchedule = async (client: Client, name: string): Promise<void> =>
  onSchedule(client, name, async (handle) => handle.delete());

async function onSchedule<T>(
  client: Client,
  name: string,
  use: (handle: ScheduleHandle) => Promise<T>,
): Promise<T> {
  try {
    return await use(client.schedule.getHandle(scheduleId(name)));
  } catch (error) {
    if (!(error instanceof ScheduleNotFoundError)) throw error;
    throw new ClientError('NotFound', `There is no schedule ${name}.`, {
      wayOut: 'See `rankflow schedule list`.',
      cause: error,
    });
  }
}
