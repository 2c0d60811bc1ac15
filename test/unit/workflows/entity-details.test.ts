import { expect, it } from 'vitest';

import type { FleetSlotStatus, FleetStatus } from '../../../src/contracts/workflows.js';
import { fleetDetails } from '../../../src/workflows/entity-details.js';

const slotOf = (slot: number, state: FleetSlotStatus['state']): FleetSlotStatus => ({
  ...{ slot, state, since: '2026-01-01T00:00:00.000Z', restarts: 0 },
  incarnation: `node-${slot}`,
});

const fleetOf = (slots: readonly FleetSlotStatus[]): FleetStatus => ({
  ...{ name: 'large', model: 'a-model', specHash: '0'.repeat(64), cluster: 'local', queue: 'q' },
  ...{ state: 'degraded', desired: slots.length, ready: slots.length - 1, slots, users: [] },
});

const linesOf = (details: string): string[] =>
  details.split('\n').filter((line) => /^\| \d/u.test(line));

it('shows every engine of a fleet', () => {
  const details = fleetDetails(fleetOf([slotOf(0, 'ready'), slotOf(1, 'loading')]));
  expect(linesOf(details).map((line) => line.split('|')[1]?.trim())).toEqual(['0', '1']);
  expect(details).not.toContain('more');
});

it('shows of a thousand engines those that are not ready, a hundred in all, and where to see the others', () => {
  const slots = Array.from({ length: 1000 }, (_, slot) =>
    slotOf(slot, slot === 999 ? 'loading' : 'ready'),
  );
  const details = fleetDetails(fleetOf(slots));
  const lines = linesOf(details);
  expect(lines).toHaveLength(100);
  expect(lines[0]).toMatch(/^\| 999 \| loading/u);
  expect(lines[1]).toMatch(/^\| 0 \| ready/u);
  expect(details).toContain('And 900 more: `rankflow fleet status large`');
});
