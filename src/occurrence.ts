import type { Occurrence, ScheduledRun } from './contracts/schedule.js';

/** What patterns may hold, with what it stands for. */
const PLACEHOLDERS = [
  'schedule',
  'date',
  'yesterday',
  'year',
  'month',
  'day',
  'hour',
  'minute',
  'second',
  'runId',
] as const;
type Placeholder = (typeof PLACEHOLDERS)[number];

const DAY_MS = 86_400_000;

/** Fields of a moment in a time zone, as text with leading zeros. */
function fieldsOf(moment: Date, timeZone: string): Record<string, string> {
  const parts = new Intl.DateTimeFormat('en-CA', {
    timeZone,
    year: 'numeric',
    month: '2-digit',
    day: '2-digit',
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    hourCycle: 'h23',
  }).formatToParts(moment);
  const fields = Object.fromEntries(parts.map(({ type, value }) => [type, value]));
  const { year = '', month = '', day = '' } = fields;
  return { ...fields, date: `${year}-${month}-${day}` };
}

/** The date before `YYYY-MM-DD`, whatever the length of the day. */
const dayBefore = (date: string): string =>
  new Date(Date.parse(`${date}T00:00:00Z`) - DAY_MS).toISOString().slice(0, 10);

/** Names in braces that no pattern may hold. */
export function unknownPlaceholders(pattern: string): string[] {
  const known: readonly string[] = PLACEHOLDERS;
  return [...pattern.matchAll(/\{([^{}]*)\}/gu)]
    .map(([, name]) => name ?? '')
    .filter((name) => !known.includes(name));
}

function fillPattern(pattern: string, values: Readonly<Record<string, string>>): string {
  return pattern.replaceAll(/\{([^{}]*)\}/gu, (whole, name: string) => values[name] ?? whole);
}

type Patterns = Pick<ScheduledRun, 'schedule' | 'input' | 'runId' | 'output'> & {
  readonly timing: Pick<ScheduledRun['timing'], 'timeZone'>;
};

/**
 * One start of a schedule. The same schedule and nominal time always give the same run id and addresses.
 *
 * @param nominal the time that it is for
 */
export function occurrenceOf(run: Patterns, nominal: Date): Occurrence {
  const { schedule, timing, input, output } = run;
  const fields = fieldsOf(nominal, timing.timeZone);
  const date = fields['date'] ?? '';
  const values = { ...fields, schedule, yesterday: dayBefore(date) };
  const runId = fillPattern(run.runId, values);
  const all = { ...values, runId } satisfies Partial<Record<Placeholder, string>>;
  return {
    schedule,
    runId,
    nominal: nominal.toISOString(),
    date,
    input: fillPattern(input, all),
    ...(output !== undefined && { output: fillPattern(output, all) }),
  };
}
