import { expect, it } from 'vitest';

import { fleetText } from '../../../src/cli/fleet.js';
import { ERRORS } from '../../../src/contracts/errors.js';
import { problemRows, table } from '../../../src/workflows/details.js';
import type { ClusterStatus } from '../../../src/contracts/workflows.js';
import { clusterDetails, fleetDetails } from '../../../src/workflows/entity-details.js';
import { jobDetails, jobSummary } from '../../../src/workflows/job-details.js';
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

const lab: ClusterStatus = {
  ...{ name: 'lab', provider: 'ssh', state: 'degraded', users: [] },
  address: { name: 'lab', address: '10.0.0.1:6379', dashboardUrl: 'http://10.0.0.1:8265' },
  nodes: [
    { name: 'head', role: 'head', state: 'alive', ip: '10.0.0.1', cpus: 0, gpus: 0, engines: 0 },
    {
      ...{ name: 'a', role: 'worker', state: 'draining', host: 'gpu-a', cpus: 8, gpus: 2 },
      ...{ engines: 2, deadline: '2026-01-01T00:02:00.000Z', since: '2026-01-01T00:00:00.000Z' },
    },
    {
      ...{ name: 'b', role: 'worker', state: 'failed', host: 'gpu-b', cpus: 0, gpus: 0 },
      problem: { type: 'HostUnreachable', message: 'b: no route to host' },
    },
  ],
  events: [
    { at: '2026-01-01T00:00:00.000Z', node: 'b', what: 'was alive, is missing' },
    { at: '2026-01-01T00:01:00.000Z', what: 'asked for: drain a' },
  ],
};

it('shows which nodes are cordoned, whatever else they are', () => {
  const nodes = lab.nodes.map((node) => ({ ...node, unschedulable: true as const }));
  const details = clusterDetails({ ...lab, nodes });
  for (const state of ['alive, cordoned', 'draining until 2026-01-01T00:02:00.000Z, cordoned']) {
    expect(details).toContain(`| ${state} |`);
  }
});

it('shows every node of a cluster, and what happened, the last first', () => {
  const details = clusterDetails(lab);
  expect(details.split('\n')[0]).toBe('**degraded** at 10.0.0.1:6379');
  for (const line of [
    '| head | alive | 10.0.0.1 | 0 CPU, 0 GPU | 0 |  |  |',
    '| a | draining until 2026-01-01T00:02:00.000Z | gpu-a | 8 CPU, 2 GPU | 2 | 2026-01-01T00:00:00.000Z |  |',
    '| b | failed | gpu-b | 0 CPU, 0 GPU |  |  | b: no route to host |',
  ]) {
    expect(details).toContain(line);
  }
  const [drain, lost] = ['|  | asked for: drain a |', '| b | was alive, is missing |'];
  expect(details.indexOf(drain)).toBeGreaterThan(details.indexOf('| When | Node | What |'));
  expect(details.indexOf(lost)).toBeGreaterThan(details.indexOf(drain));
});

it('shows a cluster that has nothing to tell yet', () => {
  const { address: _address, events: _events, ...young } = lab;
  const details = clusterDetails({ ...young, state: 'starting', nodes: [] });
  expect(details).toContain('**starting** at no address yet');
  expect(details).not.toContain('When');
  expect(details).not.toContain('undefined');
});

it('shows every attempt of a job, and what came of it', () => {
  const details = jobDetails({
    ...{ jobId: 'moons', state: 'succeeded', entrypoint: 'python train.py', cluster: 'lab' },
    attempts: [
      {
        ...{ attempt: 1, submissionId: 'moons-a1', state: 'lost', node: 'a' },
        ...{ startedAt: '2026-01-01T00:00:00.000Z', endedAt: '2026-01-01T00:01:00.000Z' },
        problem: { type: 'JobLost', message: 'lost with the head' },
      },
      {
        ...{ attempt: 2, submissionId: 'moons-a2', state: 'succeeded' },
        startedAt: '2026-01-01T00:02:00.000Z',
      },
    ],
    result: { metrics: { accuracy: 0.9 }, checkpoint: '/store/c', path: '/store/r.json' },
  });
  for (const line of [
    '**succeeded**: job moons on cluster lab',
    '| 1 | lost | a | 2026-01-01T00:00:00.000Z | 2026-01-01T00:01:00.000Z | lost with the head |',
    '| 2 | succeeded |  | 2026-01-01T00:02:00.000Z |  |  |',
    ...['Metrics: accuracy 0.9', 'Checkpoint: /store/c', 'Result: /store/r.json'],
  ]) {
    expect(details).toContain(line);
  }
  expect(jobSummary({ entrypoint: `python  a.py\n${'x'.repeat(100)}` })).toMatch(
    /^python a\.py x+…$/u,
  );
});
