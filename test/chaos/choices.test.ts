import { describe, expect, it } from 'vitest';

import { Deck, FAULTS, cardsOf } from '../../chaos/faults/index.js';
import { PHASES } from '../../chaos/phases.js';
import { Random } from '../../chaos/random.js';
import { markdown } from '../../chaos/report/markdown.js';
import { mergeReports } from '../../chaos/report/merge.js';
import type { FaultRecord, Report } from '../../chaos/report/record.js';
import { percentile } from '../../chaos/report/statistics.js';

const names = (deck: Deck): string[] => {
  const dealt: string[] = [];
  for (let card = deck.deal(); card !== undefined; card = deck.deal()) {
    dealt.push(`${card.fault.name} ${card.phase}`);
  }
  return dealt;
};

describe('the choices of a campaign', () => {
  it('are those of its seed, lane by lane', () => {
    const cards = cardsOf(FAULTS, PHASES, 'simulated');
    const deal = (seed: number): string[] =>
      names(new Deck(cards, new Random(seed).fork('main'), 1));
    expect(deal(7)).toEqual(deal(7));
    expect(deal(7)).not.toEqual(deal(8));
    const other = new Random(7).fork('slow');
    expect(other.next()).not.toBe(new Random(7).fork('main').next());
  });

  it('try every fault in each of its phases, where it hurts most first', () => {
    const cards = cardsOf(FAULTS, PHASES, 'simulated');
    const dealt = names(new Deck(cards, new Random(1), 1));
    const all = cards.map(({ fault, phase }) => `${fault.name} ${phase}`);
    expect(dealt.toSorted()).toEqual(all.toSorted());
    const worst = new Set(cards.map(({ fault }) => `${fault.name} ${fault.phases[0]}`));
    expect(new Set(dealt.slice(0, worst.size))).toEqual(worst);
  });

  it('can be narrowed to one fault and one phase', () => {
    const cards = cardsOf(FAULTS, PHASES, 'vllm', { only: 'kill-engine', phase: 'commit' });
    expect(names(new Deck(cards, new Random(1), 1))).toEqual(['kill-engine commit']);
  });

  it('leave real engines what only they have, and simulated ones theirs', () => {
    const of = (backend: 'vllm' | 'simulated'): string[] =>
      cardsOf(FAULTS, PHASES, backend).map(({ fault }) => fault.name);
    expect(of('vllm')).toContain('kill-engine-core');
    expect(of('simulated')).not.toContain('kill-engine-core');
  });
});

const fault = (change: Partial<FaultRecord>): FaultRecord => ({
  ...{ number: 1, fault: 'kill-engine', phase: 'generate', backend: 'vllm', run: 'r' },
  ...{ at: '2026-01-01T00:00:00Z', what: 'engine 0', lostRows: 2, lostTokens: 10 },
  ...{ boundSeconds: 100, overlapped: false, healedSeconds: 20 },
  ...change,
});

const report = (seed: number, faults: readonly FaultRecord[]): Report => ({
  ...{ version: 1, seeds: [seed], startedAt: '2026-01-01T00:00:00Z', seconds: 60, cores: 2 },
  ...{ faults, skipped: [], histories: 3, violations: [] },
  runs: [
    {
      ...{ run: 'r', scenario: 'real', backend: 'vllm', state: 'completed', seconds: 50, rows: 10 },
      ...{ faults: faults.length, succeeded: 10, failed: 0, lost: 0, duplicated: 0, torn: 0 },
      ...{ tokens: 1000, redoneTokens: 5, redoneTokensAtMost: 15, retries: 1 },
    },
  ],
});

describe('the report of a campaign', () => {
  it('counts rows, redone tokens and seconds of recovery for each fault', () => {
    const text = markdown(
      report(1, [fault({}), fault({ phase: 'commit', healedSeconds: 40 }), fault({})]),
    );
    expect(text).toContain('| vLLM | 1 | 3 | 10 | 0 | 0 | 0 | 1000 | 0.50 % | 1.50 % |');
    expect(text).toContain('| kill-engine | vLLM | 3 | generate 2, commit 1 |');
    expect(text).toContain('| 20.0 / 40.0 / 40.0 |');
    expect(text).toContain('Every invariant held.');
  });

  it('can be put together from several campaigns', () => {
    const merged = mergeReports([report(1, [fault({})]), report(2, [fault({}), fault({})])]);
    expect(merged).toMatchObject({ seeds: [1, 2], seconds: 120, histories: 6 });
    expect([merged.faults.length, merged.runs.length]).toEqual([3, 2]);
  });

  it('takes percentiles by nearest rank', () => {
    const values = [5, 1, 4, 2, 3];
    expect([0.5, 0.95, 1].map((share) => percentile(values, share))).toEqual([3, 5, 5]);
    expect(percentile([], 0.5)).toBeUndefined();
  });
});
