import { expect, test } from 'vitest';

import { costText, price } from '../../../src/cli/cost-text.js';
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

test('people read it in a line, and the nodes in another', () => {
  expect(costText(costOf(USAGE, 3_000_000, { engineHour: 2 }))).toBe(
    'took     1.5 engine-hours, 7% of it loading, 3000 tokens/s, 2000000 tokens per engine-hour, ' +
      'cost 3, 1 per million tokens, 1 engine preempted, 0.05 engine-hours draining (0.1 of the cost)\n' +
      '         a 1, b 0.5',
  );
});

test('what preemptions cost is draining and loading again', () => {
  const [a, b] = USAGE.nodes;
  const nodes = [{ ...a, reloadingSeconds: 180 }, b] as RunUsage['nodes'];
  const text = (prices: Parameters<typeof costOf>[2]) =>
    costText(costOf({ ...USAGE, nodes }, 0, prices));
  const hours = '1 engine preempted, 0.05 engine-hours draining and 0.05 loading elsewhere';
  expect(text({ engineHour: 2 })).toContain(`${hours} (0.2 of the cost)`);
  expect(text({})).toMatch(new RegExp(`${hours}\\n`, 'u'));
});

test('tokens that were generated again are in the line', () => {
  const again = (leftTokens: number) =>
    costText(costOf({ nodes: [], redone: { rows: 3, tokens: 900, leftTokens } }, 0));
  expect(again(0)).toBe('took     0 engine-hours, up to 900 tokens generated again');
  expect(again(600)).toBe(
    'took     0 engine-hours, up to 900 tokens generated again (600 of engines that had to leave)',
  );
});

test('prices are for all nodes or for one', () => {
  const prices = ['2.5', 'worker-1=0.8', 'b=1'].reduce<ReturnType<typeof price>>(
    (before, text) => price(text, before),
    {},
  );
  expect(prices).toEqual({ engineHour: 2.5, nodes: { 'worker-1': 0.8, b: 1 } });
  for (const text of ['', 'free', '-1', 'a=', '1,5']) expect(() => price(text, {})).toThrow();
});

test('a run that held nothing says so', () => {
  expect(costText(costOf({ nodes: [] }, 0))).toBe('took     0 engine-hours');
});
