import { expect, test } from 'vitest';

import { checkRecovery } from '../../chaos/checker/recovery.js';
import type { Health } from '../../chaos/lab/health.js';
import type { Struck } from '../../chaos/lab/lab.js';

/** Seconds at which rows of the run were answered. */
const run = (rows: readonly number[], fleet = 'f') => ({
  ...{ fleet, cluster: fleet },
  view: {
    ...{ batches: [], commits: new Map(), seenAt: {}, tokensOfRows: () => new Map() },
    finishedAt: new Map(rows.map((second, row) => [row, second * 1000])),
  },
  violation: (invariant: string, code: string, message: string) => ({ invariant, code, message }),
});

/** A fault in `generate`, of an engine (300 s) or a process of the stack (45 s), that is well again at `healed`. */
const struck = (
  trial: ReturnType<typeof run>,
  what: 'engine' | 'process',
  at: number,
  healed?: number,
) =>
  ({
    ...{ trial, at: at * 1000, endedAt: at * 1000, snapshot: { lost: [] }, strike: { healed } },
    fault: { scope: what === 'engine' ? 'fleet' : 'stack' },
    record: {
      ...{ number: at, fault: `kill-${what}`, phase: 'generate' },
      boundSeconds: what === 'engine' ? 300 : 45,
    },
  }) as unknown as Struck;

const health = {
  judges: () => true,
  healedAt: (_after: number, _scope: string, _trial: unknown, { healed }: { healed?: number }) =>
    healed && healed * 1000,
} as unknown as Health;

const complaints = (...all: readonly Struck[]): string[] =>
  checkRecovery(all, health).map(({ message }) => message);

test('a fault has its own time', () => {
  expect(complaints(struck(run([50]), 'process', 10, 20))).toEqual([]);
  expect(complaints(struck(run([60]), 'process', 10, 20))).toEqual([
    'fault #10 kill-process took 50 s to recover from, and 45 s at most are promised',
  ]);
});

test('what is never well again is told', () => {
  expect(complaints(struck(run([12]), 'engine', 10))).toEqual([
    'after fault #10 kill-engine it was never all well again',
  ]);
});

test('a fault on another fleet gives no time', () => {
  const [one, other] = [run([400]), run([12], 'other')];
  const both = [struck(one, 'engine', 10, 400), struck(other, 'engine', 300, 310)];
  expect(complaints(...both)).toEqual([
    'fault #10 kill-engine took 390 s to recover from, and 300 s at most are promised',
  ]);
});

test('while an engine comes back, a killed process has its time too, and no longer', () => {
  const both = (row: number, engine: number) => {
    const trial = run([row]);
    return complaints(struck(trial, 'engine', 10, engine), struck(trial, 'process', 12, 20));
  };
  expect(both(200, 200)).toEqual([]);
  expect(both(320, 320)).toHaveLength(2);
});

test('of an engine that was back before, a process that is killed has no time', () => {
  const trial = run([60, 200]);
  const both = [struck(trial, 'engine', 10, 60), struck(trial, 'process', 100, 110)];
  expect(complaints(...both)).toEqual([
    'fault #100 kill-process took 100 s to recover from, and 45 s at most are promised',
  ]);
});
