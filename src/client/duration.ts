const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** A hundred years: longer than anybody waits, and short enough for dates and timers. */
const MOST_SECONDS = 36_525 * 86_400;

/**
 * Seconds of a length of time as people write it: `90s`, `15m`, `8h`, `2d`, `1h30m`.
 *
 * @returns undefined when it is none, or longer than a hundred years
 */
export function secondsOf(text: string): number | undefined {
  const parts = [...text.matchAll(/(\d+)([smhd])/gu)];
  if (parts.length === 0 || parts.map(([part]) => part).join('') !== text) return undefined;
  const seconds = parts.reduce(
    (sum, [, count, unit]) => sum + Number(count) * (UNITS[unit ?? ''] ?? 0),
    0,
  );
  return seconds <= MOST_SECONDS ? seconds : undefined;
}

/** `5400` → `1h30m`. */
export function durationText(seconds: number): string {
  if (seconds === 0) return '0s';
  let left = seconds;
  let text = '';
  for (const [unit, size] of Object.entries(UNITS).toReversed()) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count > 0) text += `${count}${unit}`;
  }
  return text;
}

/**
 * The moment that a deadline means: a length of time from `now`, or a time with its zone.
 *
 * @returns ISO 8601, or the text itself when it is neither, for the schema to refuse
 */
export function momentOf(text: string, now: Date): string {
  const seconds = secondsOf(text);
  if (seconds !== undefined) return new Date(now.getTime() + seconds * 1000).toISOString();
  const zoned = /(?:Z|[+-]\d\d:?\d\d)$/u.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(zoned) ? text : new Date(zoned).toISOString();
}
