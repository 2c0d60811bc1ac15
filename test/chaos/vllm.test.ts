import { beforeAll, describe, expect, it } from 'vitest';

import { vllmCampaign } from '../../chaos/campaign.js';
import type { Report } from '../../chaos/report/record.js';
import { WITHOUT_TIME, holds, publish } from './publish.js';

/** Real vLLM engines on one warm fleet; loading them is most of the time. */
const MINUTES = 20;
const SEED = 20_26;

let report: Report;

beforeAll(
  async () => {
    report = await vllmCampaign({
      ...{ faults: 1000, minutes: MINUTES, seed: SEED, short: true, selection: {} },
      ...{ engines: 'vllm', partitions: false, log: (line) => console.log(line) },
    });
    publish('vllm', report);
  },
  (MINUTES + 20) * 60_000,
);

describe('real engines', () => {
  it('answer every row exactly once and leave nothing behind, whatever is killed', () => {
    holds(report, ...WITHOUT_TIME);
    expect(report.runs.map(({ state }) => state)).toEqual(report.runs.map(() => 'completed'));
  });

  it('are well again in time', () => {
    holds(report, 'I6');
  });

  it('are really hit: rows are being decoded where an engine or a node is killed', () => {
    const hit = report.faults.filter(({ fault }) => ['kill-engine', 'kill-node'].includes(fault));
    expect(hit.map(({ lostRows }) => lostRows > 0)).toEqual([true, true]);
  });

  it.each([
    ['kill-engine', 'their actor is killed'],
    ['kill-engine-core', 'their EngineCore is killed'],
    ['kill-node', 'their node is killed'],
    ['kill-head', 'the Ray head is killed'],
    ['kill-temporal', 'the Temporal server is killed'],
    ['kill-control-worker', 'the TypeScript control worker is killed'],
    ['kill-python-worker', 'the Python control worker is killed'],
    ['zombie', 'they are frozen in a commit, and wake up when another has made it'],
  ])('go on when (%s) %s', (fault) => {
    expect(report.skipped).toEqual([]);
    expect(report.faults.filter((one) => one.fault === fault)).not.toEqual([]);
  });
});
