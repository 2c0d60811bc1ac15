import { beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { partitionCampaign } from '../../chaos/campaign.js';
import type { Report } from '../../chaos/report/record.js';
import { WITHOUT_TIME, holds, publish } from './publish.js';

/** Each partition once, between hosts that are network namespaces. */
const MINUTES = 15;
const SEED = 20_26;

let report: Report | undefined;

beforeAll(
  async () => {
    report = await partitionCampaign({
      ...{ faults: 1000, minutes: MINUTES, seed: SEED, short: true, selection: {} },
      ...{ engines: 'simulated', partitions: true, log: (line) => console.log(line) },
    });
    if (report !== undefined) publish('partitions', report);
  },
  (MINUTES + 10) * 60_000,
);

describe('hosts that are cut off from one another', () => {
  beforeEach(({ skip }) => {
    skip(report === undefined, 'network namespaces may not be made here');
  });

  it('cost no row, and none is answered twice', () => {
    if (report !== undefined) holds(report, ...WITHOUT_TIME);
    expect(report?.runs.map(({ state }) => state)).toEqual(report?.runs.map(() => 'completed'));
  });

  it('are well again in time', () => {
    if (report !== undefined) holds(report, 'I6');
  });

  it.each([
    ['partition-temporal-short', 'a node from Temporal, for less than any time-out'],
    ['partition-temporal', 'a node from Temporal, until its batches are given to another'],
    ['partition-nodes', 'a node from the Ray head and the other nodes'],
    ['partition-all', 'a node from everybody'],
    ['partition-head-short', 'the Ray head from everybody'],
  ])('were really cut off (%s): %s', (fault) => {
    expect(report?.skipped).toEqual([]);
    expect(report?.faults.map((one) => one.fault)).toContain(fault);
  });
});
