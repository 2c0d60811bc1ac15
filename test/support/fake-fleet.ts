import type { FleetSlotStatus, FleetStatus } from '../../src/contracts/workflows.js';

/** A slot that is ready, but for what is to be otherwise. */
export const slotOf = (slot: number, change: Partial<FleetSlotStatus> = {}): FleetSlotStatus => ({
  slot,
  state: 'ready',
  since: '2026-01-01T00:00:00.000Z',
  restarts: 0,
  ...change,
});

/** What a fleet with these slots says of itself. */
export const fleetOf = (name: string, slots: readonly FleetSlotStatus[]): FleetStatus => ({
  name,
  model: 'org/model',
  specHash: 'a'.repeat(64),
  cluster: 'lab',
  queue: `fleet-${name}`,
  state: 'ready',
  desired: 3,
  ready: 1,
  slots,
  users: [],
});
