import { describe, expect, it } from 'vitest';

import type { RankProgressView } from '../../../src/contracts/workflows.js';
import { rankDetails } from '../../../src/workflows/run-progress.js';

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
