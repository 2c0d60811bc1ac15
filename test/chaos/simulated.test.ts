import { beforeAll, describe, expect, it } from 'vitest';

import { simulatedCampaign } from '../../chaos/campaign.js';
import type { Report } from '../../chaos/report/record.js';
import { ON_REAL_ENGINES } from '../../chaos/stages/vllm.js';
import { holds, publish } from './publish.js';

/**
 * The short campaign, on real processes of the stack, Ray and Temporal: every fault once, but for those that
 * `vllm.test.ts` tries on real engines in the same phase.
 */
const MINUTES = 20;
const SEED = 20_26;

let report: Report;

beforeAll(
  async () => {
    report = await simulatedCampaign({
      ...{ faults: 1000, minutes: MINUTES, seed: SEED, short: true },
      selection: { elsewhere: ON_REAL_ENGINES },
      ...{ engines: 'simulated', partitions: false, log: (line) => console.log(line) },
    });
    publish('simulated', report);
  },
  (MINUTES + 8) * 60_000,
);

describe('whatever is killed, stopped, starved or full', () => {
  it('every row is answered exactly once, in input order, with the answer to its own prompt', () => {
    holds(report, 'I1');
    expect(report.runs.length).toBeGreaterThan(5);
    expect(report.runs.map(({ lost, duplicated }) => lost + duplicated)).toEqual(
      report.runs.map(() => 0),
    );
  });

  it('no reader ever sees a torn or half-visible file', () => {
    holds(report, 'I2');
  });

  it('no row that was finished is generated again', () => {
    holds(report, 'I3');
  });

  it('no process, shared memory, token or temporary file is left behind', () => {
    holds(report, 'I4');
  });

  it('every history replays', () => {
    holds(report, 'I5');
    expect(report.histories).toBeGreaterThan(10);
  });

  it('everything is well again in time', () => {
    holds(report, 'I6');
  });

  it('no prompt, answer or secret is in a history, a heartbeat, a log or an error', () => {
    holds(report, 'I7');
  });

  it('a run is cancelled while it generates', () => {
    const phases = report.faults
      .filter(({ fault }) => fault === 'cancel')
      .map(({ phase }) => phase);
    expect(phases).toContain('generate');
  });

  it.each([
    ...['zombie', 'hang', 'hang-silently', 'out-of-memory', 'second-loss', 'torn-write'],
    ...['kill-raylet', 'kill-all-nodes', 'preempt-120', 'preempt-30', 'preempt-0', 'kill-child'],
    ...['kill-cli', 'kill-supervisor', 'drain-node', 'drain-control-worker', 'drain-python-worker'],
    ...['store-full', 'poison'],
    ...['s3-409', 's3-412', 's3-503', 's3-lost-acknowledgement', 's3-slow', 's3-hang'],
  ])('%s was really tried', (fault) => {
    const tried = report.faults.filter((one) => one.fault === fault);
    const reason = report.skipped.find((one) => one.fault === fault)?.reason;
    expect(tried.length, reason).toBeGreaterThan(0);
  });
});
