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

/** Whether this machine knows a time zone of this name. */
export function isTimeZone(name: string): boolean {
  try {
    return Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone !== '';
  } catch {
    return false;
  }
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

/** Whether a brace is left that encloses no name: the rest would be taken as it stands. */
export const hasLooseBrace = (pattern: string): boolean =>
  /[{}]/u.test(pattern.replaceAll(/\{[^{}]*\}/gu, ''));

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

/**
 * The moment that a person means by a day (`2026-01-31`, in the time zone) or a time with its zone.
 *
 * @param end which moment of a day
 * @returns undefined when it is neither, or a day that no calendar has
 */
export function momentIn(text: string, timeZone: string, end: 'start' | 'end'): Date | undefined {
  const [day] = /^\d{4}-\d\d-\d\d/u.exec(text) ?? [];
  // What JavaScript reads as a day of March.
  if (day !== undefined && !isDay(day)) return undefined;
  if (day !== text) {
    const moment = /(?:Z|[+-]\d\d:?\d\d)$/u.test(text) ? new Date(text) : new Date(Number.NaN);
    return Number.isNaN(moment.getTime()) ? undefined : moment;
  }
  const utc = Date.parse(`${text}T${end === 'start' ? '00:00:00.000' : '23:59:59.999'}Z`);
  // The offset of the zone at about that moment; asked twice, as it may change in between.
  const guess = new Date(utc - offsetMs(new Date(utc), timeZone));
  const moment = new Date(utc - offsetMs(guess, timeZone));
  // Where clocks go forward at midnight, the day begins with another time; a zone may have left a day out.
  return [moment, guess].find((one) => fieldsOf(one, timeZone)['date'] === text);
}

/** Whether there is a day `YYYY-MM-DD`. */
function isDay(text: string): boolean {
  const day = new Date(`${text}T00:00:00Z`);
  return !Number.isNaN(day.getTime()) && day.toISOString().startsWith(text);
}

/** By how many milliseconds clocks of a zone are ahead of UTC. */
function offsetMs(moment: Date, timeZone: string): number {
  const { date, hour, minute, second } = fieldsOf(moment, timeZone);
  const local = Date.parse(`${date}T${hour}:${minute}:${second}Z`);
  return local - Math.floor(moment.getTime() / 1000) * 1000;
}
