import { type Command, InvalidArgumentError } from 'commander';

import { ClientError } from '../client/errors.js';
import { duration, flagOf, numeric } from './run-options.js';
import { collect } from './collect.js';

/** Flags of `schedule create` and `update`: of the schedule, not of its runs. Nothing is checked yet. */
export interface ScheduleFlags {
  readonly cron?: readonly string[];
  readonly at?: readonly string[];
  readonly on?: readonly string[];
  readonly timeZone?: string;
  readonly jitter?: unknown;
  readonly overlap?: string;
  readonly catchUp?: unknown;
  readonly pauseOnFailure?: boolean;
  readonly input?: string;
  readonly output?: string;
  readonly runId?: string;
  readonly skipIfNoInput?: boolean;
  readonly waitForInput?: unknown;
  readonly deadline?: unknown;
  readonly keepLast?: unknown;
  readonly keepDays?: unknown;
  readonly notifyUrl?: readonly string[];
  readonly notifyUrlEnv?: readonly string[];
  readonly notifyUrlFile?: readonly string[];
  readonly notifySecretEnv?: string;
  readonly notifySecretFile?: string;
  readonly notifyCommand?: readonly unknown[];
  readonly notifyEnv?: Readonly<Record<string, string>>;
}

const DAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'];

/** `mon-fri` or `sat,sun`; a name that is none stays as it is, for the schema to refuse. */
export function days(text: string): string[] {
  return text
    .toLowerCase()
    .split(',')
    .flatMap((part) => {
      const [first = '', last] = part.split('-');
      const [from, to] = [DAYS.indexOf(first), DAYS.indexOf(last ?? first)];
      if (from < 0 || to < 0) return [part];
      const count = ((to - from + DAYS.length) % DAYS.length) + 1;
      return Array.from({ length: count }, (_, day) => DAYS[(from + day) % DAYS.length] ?? '');
    });
}

function command(text: string, earlier: readonly unknown[] = []): unknown[] {
  try {
    return [...earlier, JSON.parse(text)];
  } catch {
    throw new InvalidArgumentError('Expected a JSON array, such as \'["mail", "-s", "done"]\'.');
  }
}

function variable(
  text: string,
  earlier: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1) {
    throw new InvalidArgumentError(
      'Expected NAME=value. Commands have the variables of the control worker anyway.',
    );
  }
  return { ...earlier, [text.slice(0, at)]: text.slice(at + 1) };
}

/** Options of when, from what and to where. */
export function addScheduleOptions(one: Command): Command {
  return one
    .option('--cron <line>', 'when, as five cron fields; repeat it for more', collect)
    .option('--at <time>', 'when, as a time of day HH:MM; repeat it for more', collect)
    .option('--on <days>', 'days for --at: mon-fri, or sat,sun (default: all)', days)
    .option('--time-zone <name>', 'of the times and of {date} (default: that of this machine)')
    .option('--jitter <time>', 'start up to so much later, at random', duration)
    .option(
      '--overlap <policy>',
      'while the run before goes on: skip, buffer-one, buffer-all (default), cancel-other, terminate-other or allow-all',
    )
    .option('--catch-up <time>', 'start what was missed so long ago (default: 3d)', duration)
    .option('--pause-on-failure', 'pause the schedule when a run fails')
    .option('--no-pause-on-failure', 'go on when a run fails')
    .option('--input <pattern>', 'requests, such as s3://bucket/{date}/requests.jsonl')
    .option('--output <pattern>', 'where the answers are copied to, such as /data/{date}.jsonl')
    .option('--run-id <pattern>', 'default: {schedule}-{date}, so one run a day')
    .option('--skip-if-no-input', 'no input is no failure')
    .option('--no-skip-if-no-input', 'no input is a failure')
    .option('--wait-for-input <time>', 'look so long for an input that is not there', duration)
    .option('--deadline <time>', 'a run expires so long after its start', duration)
    .option('--keep-last <n>', 'remove all but the newest runs of the schedule', numeric)
    .option('--keep-days <n>', 'remove runs of the schedule that are older', numeric)
    .option('--notify-url <url>', 'post here how a run ended; repeat it for more', collect)
    .option('--notify-url-env <name>', 'variable of the control worker that holds a URL', collect)
    .option(
      '--notify-url-file <file>',
      'file on the host of the control worker that holds one',
      collect,
    )
    .option('--notify-secret-env <name>', 'variable of the control worker that holds the HMAC key')
    .option('--notify-secret-file <file>', 'file on the host of the control worker that holds it')
    .option('--notify-command <json>', 'run this: ["program", "argument"]; repeat it', command)
    .option('--notify-env <k=v>', 'variable for the commands; repeat it for more', variable);
}

type Loose = Readonly<Record<string, unknown>>;

/** Leaves out what is undefined, so that it does not hide what is there. */
const present = (values: Loose): Loose =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));

/** What flags say about a schedule, on top of what is there. @throws ClientError `Usage` */
export function applyFlags(
  flags: ScheduleFlags,
  before: { readonly run: Loose; readonly policies: Loose },
): { run: Loose; policies: Loose } {
  const timing = present({
    cron: flags.cron,
    at: flags.at,
    on: flags.on,
    timeZone: flags.timeZone,
    jitterSeconds: flags.jitter,
  });
  // One way to say when replaces the other.
  const replaced =
    flags.cron !== undefined || flags.at !== undefined ? { cron: [], at: [], on: [] } : {};
  const retention = present({ keepLast: flags.keepLast, keepDays: flags.keepDays });
  const notify = notificationsOf(flags, before.run);
  return {
    run: {
      ...before.run,
      timing: { ...(before.run['timing'] as Loose), ...replaced, ...timing },
      ...present({
        input: flags.input,
        output: flags.output,
        runId: flags.runId,
        noInput: noInputOf(flags.skipIfNoInput),
        waitForInputSeconds: flags.waitForInput,
        deadlineSeconds: flags.deadline,
      }),
      ...(Object.keys(retention).length > 0 && {
        retention: { ...(before.run['retention'] as Loose | undefined), ...retention },
      }),
      ...(notify.length > 0 && { notify }),
    },
    policies: {
      ...before.policies,
      ...present({
        overlap: flags.overlap,
        catchUpSeconds: flags.catchUp,
        pauseOnFailure: flags.pauseOnFailure,
      }),
    },
  };
}

function noInputOf(skip: boolean | undefined): 'skip' | 'fail' | undefined {
  if (skip === undefined) return undefined;
  return skip ? 'skip' : 'fail';
}

/**
 * Who is told: flags replace those of their kind, and what is said about a kind holds for those that are there.
 *
 * @throws ClientError `Usage` when there are none that it could hold for
 */
function notificationsOf(flags: ScheduleFlags, before: Loose): Loose[] {
  const { notifyCommand, notifyEnv, notifySecretEnv, notifySecretFile } = flags;
  const there = (before['notify'] ?? []) as Loose[];
  const ofKind = (kind: string): Loose[] => there.filter((one) => one['kind'] === kind);
  const secret = present({ env: notifySecretEnv, file: notifySecretFile });
  const signed = Object.keys(secret).length > 0 && { secret };
  const named = webhooksOf(flags);
  const webhooks = named.length > 0 ? named : ofKind('webhook');
  const commands =
    notifyCommand?.map((line) => ({ kind: 'command', command: line })) ?? ofKind('command');
  if (signed !== false && webhooks.length === 0) {
    const flag = notifySecretEnv === undefined ? '--notify-secret-file' : '--notify-secret-env';
    throw new ClientError('Usage', `${flag}: there is no webhook to sign for`, {
      wayOut: 'Name one with --notify-url or --notify-url-env.',
    });
  }
  if (notifyEnv !== undefined && commands.length === 0) {
    throw new ClientError('Usage', '--notify-env: there is no command that gets it', {
      wayOut: 'Name one with --notify-command.',
    });
  }
  return [
    ...webhooks.map((one) => ({ ...one, ...signed })),
    ...commands.map((one) => ({ ...one, ...(notifyEnv && { env: notifyEnv }) })),
  ];
}

function webhooksOf({ notifyUrl = [], notifyUrlEnv = [], notifyUrlFile = [] }: ScheduleFlags) {
  return [
    ...notifyUrl.map((url) => ({ url })),
    ...notifyUrlEnv.map((env) => ({ urlFrom: { env } })),
    ...notifyUrlFile.map((file) => ({ urlFrom: { file } })),
  ].map((where) => ({ kind: 'webhook', ...where }));
}

const SCHEDULE_NAMES: Readonly<Record<string, string>> = {
  'run.schedule': 'NAME',
  'run.timing.jitterSeconds': '--jitter',
  'run.waitForInputSeconds': '--wait-for-input',
  'run.deadlineSeconds': '--deadline',
  'policies.catchUpSeconds': '--catch-up',
};

/** The flag that sets a field of a schedule. */
export function scheduleFlagOf(path: string): string {
  if (/^run\.timing\.(?:cron|at|on)/u.test(path)) return `--${path.split('.')[2]}`;
  if (path.startsWith('run.notify')) return '--notify-url, --notify-command';
  return SCHEDULE_NAMES[path] ?? flagOf(path.replace(/^run\.inference\./u, ''));
}
