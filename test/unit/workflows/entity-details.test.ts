import { expect, it } from 'vitest';

import { fleetText } from '../../../src/cli/fleet.js';
import { ERRORS } from '../../../src/contracts/errors.js';
import { problemRows, table } from '../../../src/workflows/details.js';
import { fleetDetails } from '../../../src/workflows/entity-details.js';
import { fleetOf, slotOf } from '../../support/fake-fleet.js';

const linesOf = (details: string): string[] =>
  details.split('\n').filter((line) => /^\| \d/u.test(line));

it('shows every engine of a fleet', () => {
  const details = fleetDetails(fleetOf('small', [slotOf(0), slotOf(1, { state: 'loading' })]));
  expect(linesOf(details).map((line) => line.split('|')[1]?.trim())).toEqual(['0', '1']);
  expect(details).not.toContain('more');
});

it('shows of a thousand engines those that are not ready, a hundred in all, and where to see the others', () => {
  const slots = Array.from({ length: 1000 }, (_, slot) =>
    slotOf(slot, { state: slot === 999 ? 'loading' : 'ready' }),
  );
  const details = fleetDetails(fleetOf('large', slots));
  const lines = linesOf(details);
  expect(lines).toHaveLength(100);
  expect(lines[0]).toMatch(/^\| 999 \| loading/u);
  expect(lines[1]).toMatch(/^\| 0 \| ready/u);
  expect(details).toContain('And 900 more: `rankflow fleet status large`');
});

it('says what went wrong last and what a person can do: about this very one, else about its kind', () => {
  const fleet = fleetOf('small', [slotOf(0)]);
  const kind = { type: 'ImpossibleResources', message: 'no room' } as const;
  const details = fleetDetails({ ...fleet, problem: kind });
  expect(details).toContain('Last problem: no room');
  expect(details).toContain(`Way out: ${ERRORS.ImpossibleResources.wayOut}`);
  const own = { ...kind, wayOut: 'Wait for the node.' };
  expect(fleetDetails({ ...fleet, problem: own })).toContain('Way out: Wait for the node.');
  expect(problemRows(own)).toEqual([
    ['Problem', 'no room'],
    ['Way out', 'Wait for the node.'],
  ]);
  expect(problemRows({ type: 'Unknown', message: 'what' })).toEqual([['Problem', 'what']]);
  expect(problemRows(undefined)).toEqual([]);
});

it('says of a fleet when its last problem was, and no way out of one that is over', () => {
  const fleet = fleetOf('small', [slotOf(0)]);
  const at = '2026-01-05T02:00:00.000Z';
  const problem = { type: 'ClusterUnavailable', message: 'no answer', at } as const;
  const during = fleetDetails({ ...fleet, state: 'degraded', problem });
  expect(during).toContain(`Last problem (${at}): no answer`);
  expect(during).toContain(`Way out: ${ERRORS.ClusterUnavailable.wayOut}`);
  const after = fleetDetails({ ...fleet, state: 'ready', problem });
  expect(after).toContain(`Last problem (${at}): no answer`);
  expect(after).not.toContain('Way out');
  expect(fleetText({ ...fleet, problem })).toContain(`last problem (${at}): no answer`);
});

it('leaves options fit to be copied, which the web interface shows with a dash unless they are code', () => {
  const problem = { type: 'InvalidInput', message: 'well-known -- or not' } as const;
  const details = table(['Run', 'x'], problemRows(problem));
  expect(details).toContain('| Problem | well-known -- or not |');
  expect(details).toContain('run with `--on-invalid` record');
  const own = { ...problem, wayOut: 'Say `run --new`, or --fleet other.' };
  expect(fleetDetails({ ...fleetOf('small', []), problem: own })).toContain(
    'Say `run --new`, or `--fleet` other.',
  );
});
