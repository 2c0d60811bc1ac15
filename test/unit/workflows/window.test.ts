import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import {
  MOST_EVENTS,
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
          const size = windowSize({ engines, maxConcurrentBatches }, ranks, 256);
          expect(size).toBeGreaterThanOrEqual(2);
          const wanted = Math.min(1500 * ranks, engines * maxConcurrentBatches * 1.5);
          expect(size * ranks).toBeGreaterThanOrEqual(wanted);
          // No rank hoards: without the least size, taking one away would leave engines idle.
          if (size > 2)
            expect((size - 1) * ranks).toBeLessThan(engines * maxConcurrentBatches * 1.5);
        },
      ),
    );
  });

  it('is longer where batches are smaller, so that an engine finds the rows it wants', () => {
    const fleet = { engines: 2, maxConcurrentBatches: 2, rowsPerEngine: 384 };
    expect(windowSize(fleet, 2, 256, 1)).toBe(3);
    expect(windowSize(fleet, 2, 32, 1)).toBe(18);
    expect(windowSize(fleet, 1, 32, 1)).toBe(36);
  });

  it('is longer where engines count rows, as batches in work thin out to their longest rows', () => {
    const fleet = { engines: 1, maxConcurrentBatches: 2, rowsPerEngine: 768 };
    const [batch, left] = [300, 300 / 3];
    // Half as many again as it takes for the rows that an engine wants.
    expect(windowSize(fleet, 1, batch) * left).toBeGreaterThanOrEqual(1.5 * fleet.rowsPerEngine);
    expect(windowSize({ ...fleet, rowsPerEngine: undefined }, 1, batch)).toBe(3);
  });

  it('stays below what a workflow may have pending, however many engines there are', () => {
    const fleet = { engines: 1000, maxConcurrentBatches: 2, rowsPerEngine: 1536 };
    expect(windowSize(fleet, 1, 16)).toBe(1500);
  });

  it('lets neighbouring ranks drain at different times, long before the limits of a history', () => {
    fc.assert(
      fc.property(fc.nat(10_000), (rank) => {
        expect(batchesPerHistory(rank)).not.toBe(batchesPerHistory(rank + 1));
        expect(batchesPerHistory(rank) * 6).toBeLessThan(4096);
      }),
    );
  });

  it('fits several times into one history, whatever its size, so that engines seldom idle between two', () => {
    fc.assert(
      fc.property(fc.nat(10_000), fc.integer({ min: 2, max: 1500 }), (rank, window) => {
        const batches = batchesPerHistory(rank, window);
        expect(batches).toBeGreaterThanOrEqual(Math.max(Math.min(8 * window, 1150), 2 * window));
        if (window <= 575) expect(batches * 6).toBeLessThan(10_000);
        expect(batches * 6).toBeLessThan(MOST_EVENTS);
        expect(batches).not.toBe(batchesPerHistory(rank + 1, window));
        if (window <= 50) expect(batches).toBe(batchesPerHistory(rank));
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
