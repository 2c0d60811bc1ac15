import { describe, expect, it } from 'vitest';

import { countFailures, HEALTHY_MS, restartDelay } from '../../src/workers/stack/backoff.js';

describe('restart of a stack process', () => {
  it('waits twice as long after each failure in a row, and never longer than half a minute', () => {
    const delays = [1, 2, 3, 4, 5, 6, 7, 8, 100].map(restartDelay);
    expect(delays).toEqual([500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  });

  it('counts failures in a row and forgets them after a healthy minute', () => {
    expect(countFailures(0, 100)).toBe(1);
    expect(countFailures(5, HEALTHY_MS - 1)).toBe(6);
    expect(countFailures(5, HEALTHY_MS)).toBe(1);
  });
});
