import { describe, expect, it } from 'vitest';

import {
  hasLooseBrace,
  momentIn,
  occurrenceOf,
  unknownPlaceholders,
} from '../../src/occurrence.js';

const run = (change = {}) => ({
  schedule: 'nightly',
  timing: { timeZone: 'Europe/Berlin' },
  input: 's3://bucket/{date}/requests.jsonl',
  runId: '{schedule}-{date}',
  ...change,
});

describe('a start of a schedule', () => {
  it('has the date of its nominal time in the time zone of the schedule', () => {
    const late = new Date('2026-03-28T23:30:00Z');
    expect(occurrenceOf(run(), late)).toEqual({
      schedule: 'nightly',
      runId: 'nightly-2026-03-29',
      nominal: '2026-03-28T23:30:00.000Z',
      date: '2026-03-29',
      input: 's3://bucket/2026-03-29/requests.jsonl',
    });
    const inUtc = run({ timing: { timeZone: 'UTC' } });
    expect(occurrenceOf(inUtc, late).runId).toBe('nightly-2026-03-28');
  });

  it('fills in every placeholder, also where clocks change', () => {
    const pattern = '{schedule}/{year}/{month}/{day}/{hour}{minute}{second}/{yesterday}';
    const filled = (moment: string) =>
      occurrenceOf(run({ input: pattern }), new Date(moment)).input;
    expect(filled('2026-03-29T00:59:59Z')).toBe('nightly/2026/03/29/015959/2026-03-28');
    expect(filled('2026-03-29T01:00:00Z')).toBe('nightly/2026/03/29/030000/2026-03-28');
    expect(filled('2026-12-31T23:00:00Z')).toBe('nightly/2027/01/01/000000/2026-12-31');
  });

  it('knows its run id in the address of the output', () => {
    const output = '/data/{runId}.jsonl';
    expect(occurrenceOf(run({ output }), new Date('2026-05-05T12:00:00Z')).output).toBe(
      '/data/nightly-2026-05-05.jsonl',
    );
  });
});

it('placeholders that are none are told', () => {
  expect(unknownPlaceholders('/data/{dat}/{hour}.{x}')).toEqual(['dat', 'x']);
  expect(unknownPlaceholders('/data/plain')).toEqual([]);
});

it('a brace without the other is told', () => {
  for (const pattern of ['/x/{date', '/x/date}', '/x/{{date}}', '/{date}/{hour']) {
    expect(hasLooseBrace(pattern), pattern).toBe(true);
  }
  expect(hasLooseBrace('/x/{date}/{hour}.jsonl')).toBe(false);
});

describe('a day or a time that a person writes', () => {
  const berlin = (text: string, end: 'start' | 'end') =>
    momentIn(text, 'Europe/Berlin', end)?.toISOString();

  it('is the whole day in the time zone, whatever its length', () => {
    expect(berlin('2026-03-29', 'start')).toBe('2026-03-28T23:00:00.000Z');
    expect(berlin('2026-03-29', 'end')).toBe('2026-03-29T21:59:59.999Z');
    expect(berlin('2026-10-25', 'start')).toBe('2026-10-24T22:00:00.000Z');
    expect(berlin('2026-10-25', 'end')).toBe('2026-10-25T22:59:59.999Z');
  });

  it('is a moment with a zone, and nothing else', () => {
    expect(berlin('2026-03-29T04:00:00+02:00', 'start')).toBe('2026-03-29T02:00:00.000Z');
    expect(berlin('2026-03-29T04:00:00', 'start')).toBeUndefined();
    expect(berlin('tomorrow', 'start')).toBeUndefined();
    expect(berlin('2026-13-45', 'start')).toBeUndefined();
  });

  it('is none that no calendar has', () => {
    for (const text of ['2026-02-31', '2026-02-29', '2026-04-31', '2026-02-31T02:00:00Z']) {
      expect(berlin(text, 'start'), text).toBeUndefined();
    }
    expect(berlin('2028-02-29', 'start')).toBe('2028-02-28T23:00:00.000Z');
    // Samoa left it out.
    expect(momentIn('2011-12-30', 'Pacific/Apia', 'start')).toBeUndefined();
  });

  it('begins later where clocks go forward at midnight', () => {
    const start = momentIn('2026-03-08', 'America/Havana', 'start');
    expect(start?.toISOString()).toBe('2026-03-08T05:00:00.000Z');
  });
});
