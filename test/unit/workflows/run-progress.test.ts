import { describe, expect, it } from 'vitest';

import type { RankProgressView, RankSummary } from '../../../src/contracts/workflows.js';
import { numbersOf, progressRows, rankDetails } from '../../../src/workflows/run-progress.js';
import { nextTelling, tellEveryMs } from '../../../src/workflows/teller.js';
import { NOTHING_DONE } from '../../../src/workflows/window.js';

const view: RankProgressView = {
  ...{ rank: 2, rowsTotal: 1000, rowsDone: 250, rowsFailed: 3, promptTokens: 10 },
  ...{ completionTokens: 25_000, batchesDone: 5, batchesTotal: 20, inFlight: [5, 6] },
  ...{ retries: 1, salvagedRows: 7 },
};

describe('the details of a rank in the web interface', () => {
  it('say how far it is, how fast, and how long it will take', () => {
    const text = rankDetails(view, { at: 0, tokens: 5_000 }, 100_000);
    expect(text).toContain('| Rank | 2 |');
    expect(text).toContain('| Rows | 250 of 1000 |');
    expect(text).toContain('| Rows failed | 3 |');
    expect(text).toContain('| As of | 1970-01-01T00:01:40.000Z |');
    expect(text).toContain('| Completion tokens per second | 200 |');
    // 750 rows of 100 tokens each at 200 tokens a second.
    expect(text).toContain('| Time left | about 6 min |');
    expect(text).not.toContain('Engines died');
  });

  it('promise nothing before anything is done', () => {
    const fresh = { ...view, rowsDone: 0, completionTokens: 0 };
    const text = rankDetails(fresh, { at: 5, tokens: 0 }, 5);
    expect(text).not.toMatch(/per second|Time left|NaN|Infinity/u);
  });

  it('name the batches that run alone', () => {
    const text = rankDetails({ ...view, suspects: [4, 9] }, { at: 0, tokens: 0 }, 1000);
    expect(text).toMatch(/Engines died with these batches.*\*\*4, 9\*\*/u);
  });
});

describe('how far a run is', () => {
  const rank = (number: number, change: Partial<RankSummary>): RankSummary => ({
    ...{ rank: number, workflowId: `run/x/rank-${number}`, state: 'running' },
    ...{ rows: 100, batches: 10, ...change },
  });
  const done = (rows: number) => ({ ...NOTHING_DONE, rows, completionTokens: rows * 10 });

  it('is exact for completed ranks, and what the others have told', () => {
    const ranks = [
      rank(0, { state: 'completed', done: done(100) }),
      rank(1, {}),
      rank(2, {}),
      rank(3, {}),
    ];
    const told = new Map([
      // Its last word before it was completed.
      [0, { done: done(90), tokensPerSecond: 5, at: '2026-01-01T00:00:00.000Z' }],
      [1, { done: done(50), tokensPerSecond: 6, at: '2026-01-01T00:02:00.000Z' }],
      [2, { done: done(20), tokensPerSecond: 4, at: '2026-01-01T00:01:00.000Z' }],
    ]);
    const numbers = numbersOf(ranks, told);
    expect(numbers).toEqual({
      done: done(170),
      tokensPerSecond: 10,
      at: '2026-01-01T00:01:00.000Z',
    });
    expect(progressRows(400, numbers, undefined, true)).toEqual([
      ['Rows', '170 of 400'],
      ['Rows failed', 0],
      ['Completion tokens', 1700],
      ['Completion tokens per second', 10],
      // 230 rows of 10 tokens each.
      ['Time left', 'about 4 min'],
      ['As of', '2026-01-01T00:01:00.000Z'],
    ]);
    expect(progressRows(400, numbers, undefined, false).flat()).not.toContain('Time left');
    expect(progressRows(400, undefined, undefined, true)).toEqual([['Rows', 400]]);
  });
});

describe('after how many steps it is told', () => {
  const tellings = (steps: number, tellers: number): number => {
    let count = 0;
    for (let at = 0; at < steps; at = nextTelling(at, tellers)) count += 1;
    return count;
  };

  it('is each step at first, and later when there are a fifteenth more', () => {
    expect([0, 1, 14].map((steps) => nextTelling(steps, 1))).toEqual([1, 2, 15]);
    expect(nextTelling(1500, 1)).toBe(1600);
  });

  it.each([1, 2, 8, 64, 512])(
    'leaves the history of a run of %i ranks far from its limit',
    (ranks) => {
      // Of a rank: a signal, and the three events of a workflow task. Of the run: two for its own signal.
      const heard = ranks * tellings(10_000, ranks);
      expect(heard * 4 + tellings(heard, 1) * 2).toBeLessThan(12_000);
    },
  );
});

describe('how often it is told', () => {
  const DAY_MS = 86_400_000;
  const tellings = (tellers: number, ms: number): number => {
    let count = 0;
    for (let at = 0; at < ms; at += tellEveryMs(at, tellers)) count += 1;
    return count;
  };

  it('is at least every 15 s at first, and later a small part of the time it took', () => {
    expect(tellEveryMs(0, 1)).toBe(15_000);
    expect(tellEveryMs(3_600_000, 1)).toBe(120_000);
  });

  it.each([1, 2, 8, 64])('leaves the history of a run of %i ranks far from its limit', (ranks) => {
    // Of a rank: a signal, and the three events of a workflow task. Of the run: a timer and two for its own signal.
    const events = (ms: number) => ranks * tellings(ranks, ms) * 4 + tellings(1, ms) * 10;
    expect(events(DAY_MS)).toBeLessThan(4_500);
    expect(events(30 * DAY_MS)).toBeLessThan(6_500);
  });

  it('leaves that of its inference far from its limit, also when engines come and go all the time', () => {
    // A signal of the run and one of the fleet, each with the three events of a workflow task.
    expect(tellings(1, 30 * DAY_MS) * 2 * 4).toBeLessThan(3_000);
  });
});
