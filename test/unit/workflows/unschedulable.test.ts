import { expect, it } from 'vitest';

import { Unschedulable } from '../../../src/workflows/unschedulable.js';

const cordon = (...nodes: string[]) => ({ nodes, unschedulable: true });
const uncordon = (...nodes: string[]) => ({ nodes, unschedulable: false });

it('cordons nodes and takes that back, and says which were so already', () => {
  const nodes = new Unschedulable();
  expect(nodes.change(cordon('a', 'b', 'a'))).toEqual({
    ...{ changed: ['a', 'b'], unschedulable: ['a', 'b'] },
  });
  expect(nodes.change(cordon('b', 'c')).changed).toEqual(['c']);
  expect(nodes.change(uncordon('a', 'd')).changed).toEqual(['a']);
  expect([nodes.has('a'), nodes.has('b')]).toEqual([false, true]);
  expect(nodes.forget(['b', 'b', 'x'])).toEqual(['b']);
  expect(nodes.names).toEqual(['c']);
});

it('knows them in the next run of the workflow', () => {
  const nodes = new Unschedulable();
  expect(nodes.carried()).toEqual({});
  nodes.change(cordon('a'));
  expect(new Unschedulable(nodes.carried().unschedulable).names).toEqual(['a']);
});

it('refuses names that no node has, all of them at once, but takes back what is cordoned and away', () => {
  const nodes = new Unschedulable(['away']);
  expect(nodes.refusal(cordon('a', 'x', 'y'), ['head', 'a'])).toBe(
    'there is no node x, y; there are head, a',
  );
  expect(nodes.refusal(cordon('away'), ['head'])).toMatch(/no node away/u);
  expect(nodes.refusal(uncordon('away', 'head'), ['head'])).toBeUndefined();
  expect(nodes.refusal(uncordon('x'), [])).toBe('there is no node x; none is known yet');
});
