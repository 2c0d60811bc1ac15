import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import {
  NOTHING_DONE,
  addCounts,
  batchNumbers,
  batchesPerHistory,
  windowSize,
} from '../../../src/workflows/window.js';

const counts = fc.record({
  batches: fc.nat(),
  rows: fc.nat(),
  failedRows: fc.nat(),
  promptTokens: fc.nat(),
  completionTokens: fc.nat(),
});

describe('the window of a rank', () => {
  it('keeps every engine busy: all ranks together schedule half as many again as engines admit', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 512 }),
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 1, max: 512 }),
        (engines, maxConcurrentBatches, ranks) => {
          const size = windowSize({ engines, maxConcurrentBatches }, ranks);
          expect(size).toBeGreaterThanOrEqual(2);
          expect(size * ranks).toBeGreaterThanOrEqual(engines * maxConcurrentBatches * 1.5);
          // No rank hoards: without the least size, taking one away would leave engines idle.
          if (size > 2)
            expect((size - 1) * ranks).toBeLessThan(engines * maxConcurrentBatches * 1.5);
        },
      ),
    );
  });

  it('lets neighbouring ranks drain at different times, long before the limits of a history', () => {
    fc.assert(
      fc.property(fc.nat(10_000), (rank) => {
        expect(batchesPerHistory(rank)).not.toBe(batchesPerHistory(rank + 1));
        expect(batchesPerHistory(rank) * 6).toBeLessThan(4096);
      }),
    );
  });
});

describe('batch numbers', () => {
  it('are those of the ranges, ascending, each once', () => {
    expect([
      ...batchNumbers([
        { first: 0, last: 2 },
        { first: 5, last: 5 },
      ]),
    ]).toEqual([0, 1, 2, 5]);
    expect([...batchNumbers([])]).toEqual([]);
  });
});

describe('counts', () => {
  it('add up in any order', () => {
    fc.assert(
      fc.property(counts, counts, (a, b) => {
        expect(addCounts(a, b)).toEqual(addCounts(b, a));
        expect(addCounts(a, NOTHING_DONE)).toEqual(a);
      }),
    );
  });
});
