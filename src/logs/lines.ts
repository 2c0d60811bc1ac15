import type { LogIds } from './ids.js';

/** One line of a log: JSON as Rankflow's processes write it, or whatever else was said. */
export interface LogLine extends LogIds {
  /** Who said it: `control-worker`, `python-worker`, `small/slot-0`. */
  readonly source: string;
  readonly text: string;
  /** Of JSON lines: `trace` to `fatal`. */
  readonly level?: string;
  /** Of JSON lines: milliseconds since the epoch. */
  readonly time?: number;
  readonly batch?: number;
  readonly attempt?: number;
}

const LEVELS: Readonly<Record<number, string>> = {
  10: 'trace',
  20: 'debug',
  30: 'info',
  40: 'warn',
  50: 'error',
  60: 'fatal',
};

/** Understands a line of a log, whatever it is. */
export function logLine(source: string, line: string): LogLine {
  const fields = line.startsWith('{') ? parsed(line) : undefined;
  if (fields === undefined) return { source, text: line };
  const { level, time, msg, run, rank, batch, attempt, fleet, cluster, job, err, error } = fields;
  const cause = [err, error].map(reasonIn).find((reason) => reason !== undefined);
  return {
    source,
    text: [msg, cause].filter((part) => typeof part === 'string' && part !== '').join(': '),
    ...(typeof level === 'number' && { level: LEVELS[level] ?? String(level) }),
    ...(typeof time === 'number' && { time }),
    ...strings({ run, fleet, cluster, job }),
    ...numbers({ rank, batch, attempt }),
  };
}

function parsed(line: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

/** An exception in a line: its message, or the last line of its trace. */
function reasonIn(error: unknown): string | undefined {
  if (typeof error === 'string') return error;
  if (typeof error !== 'object' || error === null) return undefined;
  const { message, stack } = error as { message?: unknown; stack?: unknown };
  if (typeof message === 'string') return message;
  return typeof stack === 'string' ? stack.trimEnd().split('\n').at(-1) : undefined;
}

function strings<T extends string>(values: Record<T, unknown>): Partial<Record<T, string>> {
  const found = Object.entries(values).filter(([, value]) => typeof value === 'string');
  return Object.fromEntries(found) as Partial<Record<T, string>>;
}

function numbers<T extends string>(values: Record<T, unknown>): Partial<Record<T, number>> {
  const found = Object.entries(values).filter(([, value]) => typeof value === 'number');
  return Object.fromEntries(found) as Partial<Record<T, number>>;
}

/** A line as people read it. */
export function lineText(line: LogLine): string {
  const { source, text, time, level, rank, batch, attempt } = line;
  const about = Object.entries({ rank, batch, attempt })
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}=${value}`)
    .join('');
  const when = time === undefined ? '' : `${new Date(time).toISOString()} `;
  return `${when}${level === undefined ? '' : `${level.toUpperCase()} `}${source}${about}: ${text}`;
}
