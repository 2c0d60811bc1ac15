import { expect, test } from 'vitest';

import { costOf } from '../../../src/client/cost.js';
import type { RunUsage } from '../../../src/contracts/workflows.js';

const USAGE: RunUsage = {
  generateSeconds: 1_000,
  preemptions: 1,
  nodes: [
    { node: 'a', loadingSeconds: 360, readySeconds: 3_240, drainingSeconds: 0 },
    { node: 'b', loadingSeconds: 0, readySeconds: 1_620, drainingSeconds: 180 },
  ],
};

test('engine-hours, rates and money follow from what was held', () => {
  expect(costOf(USAGE, 3_000_000, { engineHour: 2 })).toEqual({
    engineHours: 1.5,
    loadingHours: 0.1,
    drainingHours: 0.05,
    preemptions: 1,
    nodes: [
      { node: 'a', engineHours: 1, money: 2 },
      { node: 'b', engineHours: 0.5, money: 1 },
    ],
    tokensPerSecond: 3_000,
    tokensPerEngineHour: 2_000_000,
    money: 3,
    drainingMoney: 0.1,
    moneyPerMillionTokens: 1,
  });
});

test('what draining cost is at the price of its node, and not told without one', () => {
  const nodes = { a: 4, b: 20 };
  expect(costOf(USAGE, 1, { nodes }).drainingMoney).toBe(1);
  expect(costOf(USAGE, 1, { nodes: { b: 20 } })).not.toHaveProperty('drainingMoney');
  const quiet = { nodes: [{ node: 'a', loadingSeconds: 0, readySeconds: 9, drainingSeconds: 0 }] };
  expect(costOf(quiet, 1, { nodes })).not.toHaveProperty('drainingMoney');
});

test('loading again in the place of preempted engines is told apart, with its money', () => {
  const [a, b] = USAGE.nodes;
  const nodes = [{ ...a, reloadingSeconds: 180 }, b] as RunUsage['nodes'];
  expect(costOf({ ...USAGE, nodes }, 1, { nodes: { a: 4, b: 20 } })).toMatchObject({
    ...{ loadingHours: 0.1, reloadingHours: 0.05, reloadingMoney: 0.2, drainingMoney: 1 },
  });
  expect(costOf(USAGE, 1, { engineHour: 1 })).not.toHaveProperty('reloadingMoney');
});

test('what was generated again is told, and what of it engines that had to leave gave back', () => {
  const redone = { rows: 3, tokens: 900, leftTokens: 600 };
  expect(costOf({ ...USAGE, redone }, 3_000)).toMatchObject({
    redoneTokens: 900,
    redoneAfterLeaving: 600,
  });
  expect(costOf(USAGE, 3_000)).not.toHaveProperty('redoneTokens');
});

test('there is no sum of money unless every node has a price', () => {
  expect(costOf(USAGE, 1, { nodes: { a: 4 } })).not.toHaveProperty('money');
  expect(costOf(USAGE, 1, { nodes: { a: 4, b: 1 } }).money).toBe(4.5);
  expect(costOf(USAGE, 1, { engineHour: 1, nodes: { a: 4 } }).money).toBe(4.5);
});

test('a run that held nothing or generated nothing divides by nothing', () => {
  expect(costOf({ nodes: [] }, 0, { engineHour: 1 })).toEqual({
    ...{ engineHours: 0, loadingHours: 0, drainingHours: 0, preemptions: 0, nodes: [] },
  });
  expect(costOf(USAGE, 0, { engineHour: 1 })).not.toHaveProperty('moneyPerMillionTokens');
});
