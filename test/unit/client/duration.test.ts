import { describe, expect, it } from 'vitest';

import { durationText, momentOf, secondsOf } from '../../../src/client/duration.js';

describe('a length of time', () => {
  it.each([
    ['90s', 90],
    ['15m', 900],
    ['8h', 28_800],
    ['2d', 172_800],
    ['1h30m', 5_400],
    ['0s', 0],
  ])('%s is %i seconds, and back', (text, seconds) => {
    expect(secondsOf(text)).toBe(seconds);
    expect(secondsOf(durationText(seconds))).toBe(seconds);
  });

  it.each([[''], ['8'], ['h'], ['8 h'], ['8h!'], ['-8h'], ['1.5h'], ['36526d'], ['99999999999d']])(
    'is not %j',
    (text) => {
      expect(secondsOf(text)).toBeUndefined();
    },
  );
});

describe('a deadline', () => {
  const now = new Date('2026-01-31T00:00:00Z');

  it('is so much later, or a time with its zone', () => {
    expect(momentOf('8h', now)).toBe('2026-01-31T08:00:00.000Z');
    expect(momentOf('2026-01-31T08:00+02:00', now)).toBe('2026-01-31T06:00:00.000Z');
  });

  it('is left alone when it is neither, for the schema to refuse', () => {
    expect(momentOf('tomorrow', now)).toBe('tomorrow');
    expect(momentOf('99999999999d', now)).toBe('99999999999d');
    expect(momentOf('2026-01-31T08:00', now)).toBe('2026-01-31T08:00');
  });
});
