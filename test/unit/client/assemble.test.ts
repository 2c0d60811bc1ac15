import { expect, test } from 'vitest';

import { assemble, type LiveRank, type Observation } from '../../../src/client/assemble.js';
import { sumResources } from '../../../src/client/hardware.js';
import type { FleetStatus, RunProgress } from '../../../src/contracts/workflows.js';

const BASE: Observation = { runId: 'r', startedAt: 1_000, at: 61_000, ranks: [], failures: [] };

const counts = { batches: 1, rows: 10, failedRows: 1, promptTokens: 50, completionTokens: 100 };

const RUN: RunProgress = {
  runId: 'r',
  state: 'in_progress',
  plan: {
    runId: 'r',
    rows: 40,
    invalidRows: 0,
    promptTokens: 200,
    maxOutputTokens: 640,
    inputBytes: 999,
    inputSha256: 'x',
    batches: [1, 1],
    rowsPerRank: [10, 30],
    finished: false,
  },
  finished: counts,
  ranks: [],
};

const RANK: LiveRank = {
  progress: {
    rank: 1,
    rowsTotal: 30,
    rowsDone: 5,
    rowsFailed: 2,
    promptTokens: 10,
    completionTokens: 20,
    batchesDone: 1,
    batchesTotal: 2,
    inFlight: [1],
    retries: 0,
    salvagedRows: 0,
  },
  heartbeats: [{ engine: 'fleet/slot-1/abc-42', rowsDone: 4, rows: 25, completionTokens: 30 }],
  retries: 1,
};

const FLEET: FleetStatus = {
  name: 'fleet',
  model: 'm',
  specHash: 'h',
  cluster: 'local',
  queue: 'q',
  state: 'ready',
  desired: 3,
  ready: 2,
  users: ['r'],
  slots: [
    { slot: 0, state: 'ready', since: '2026-01-01T00:00:00Z', restarts: 0, incarnation: 'n-41' },
    { slot: 1, state: 'ready', since: '2026-01-01T00:00:00Z', restarts: 2, incarnation: 'abc-42' },
    { slot: 2, state: 'loading', since: '1970-01-01T00:00:31Z', restarts: 0 },
  ],
};

test('rows count when committed, and those that heartbeats report on top', () => {
  const inference = { runId: 'r', phase: 'running' as const };
  const snapshot = assemble({ ...BASE, inference, run: RUN, ranks: [RANK], fleet: FLEET });
  expect(snapshot).toMatchObject({
    state: 'in_progress',
    phase: 'generating',
    totalRows: 40,
    doneRows: 10 + 5 + 4,
    failedRows: 1 + 2,
    completionTokens: 100 + 20 + 30,
    retries: 1,
    ranks: 2,
  });
});

test('each engine shows what it does: idle, generating, or loading since when', () => {
  const { engines } = assemble({ ...BASE, fleet: FLEET, ranks: [RANK] });
  expect(engines).toEqual([
    { slot: 0, state: 'ready', rowsInFlight: 0, restarts: 0, pid: 41 },
    { slot: 1, state: 'generating', rowsInFlight: 21, restarts: 2, pid: 42 },
    { slot: 2, state: 'loading', rowsInFlight: 0, restarts: 0, loadingSeconds: 30 },
  ]);
});

test('a run that has only just started is shown, too', () => {
  const snapshot = assemble(BASE);
  expect(snapshot).toMatchObject({ state: 'validating', phase: 'starting', doneRows: 0 });
  expect(snapshot.totalRows).toBeUndefined();
});

test('nodes that are up are counted while the cluster comes up', () => {
  const node = { role: 'worker' as const, cpus: 1, gpus: 0 };
  const inference = { runId: 'r', phase: 'preparing' } as const;
  const cluster = {
    name: 'local',
    provider: 'local',
    state: 'starting',
    users: [],
    nodes: [
      { ...node, name: 'head', state: 'alive' },
      { ...node, name: 'worker-1', state: 'starting' },
    ],
  } as const;
  const snapshot = assemble({ ...BASE, inference, cluster });
  expect(snapshot.phase).toBe('bringing up the cluster');
  expect(snapshot.cluster).toMatchObject({ nodesUp: 1, nodesWanted: 2 });
  // Nobody waits for the cluster any more: a large input takes minutes to be checked.
  const { phase } = assemble({ ...BASE, inference, cluster: { ...cluster, state: 'ready' } });
  expect(phase).toBe('checking the input');
});

test('a finished run shows its results, a failed one why', () => {
  const output = {
    rows: 40,
    succeeded: 38,
    failed: 2,
    promptTokens: 1,
    completionTokens: 2,
    outputUri: '/o',
    errorsUri: '/e',
    manifestUri: '/m',
  };
  const result = { runId: 'r', state: 'completed' as const, output };
  expect(assemble({ ...BASE, ended: { status: 'COMPLETED', result } })).toMatchObject({
    state: 'completed',
    phase: 'done',
    doneRows: 40,
    failedRows: 2,
    output,
  });
  const failure = {
    type: 'PlanCorrupt' as const,
    message: 'why',
    problems: [],
    totalProblems: 0,
    exitCode: 1,
  };
  const failed = assemble({ ...BASE, ended: { status: 'TERMINATED', failure } });
  expect(failed).toMatchObject({ state: 'failed', failure: { message: 'why' } });
});

test('only nodes that are alive lend their CPUs and GPUs', () => {
  const nodes = [
    { state: 'ALIVE', resources_total: { CPU: 8, GPU: 2, memory: 1e9 } },
    { state: 'ALIVE', resources_total: { CPU: 4 } },
    { state: 'DEAD', resources_total: { CPU: 64, GPU: 8 } },
  ];
  expect(sumResources({ data: { result: { result: nodes } } })).toEqual({ cpus: 12, gpus: 2 });
  expect(sumResources({})).toEqual({ cpus: 0, gpus: 0 });
});

test('a paused run says why and what to do, whether it plans or generates', () => {
  const problem = { type: 'StoreFull', message: 'no room', wayOut: 'Free some.' } as const;
  const generating = assemble({
    ...BASE,
    run: { ...RUN, state: 'paused', problem },
    ranks: [RANK],
    failures: [{ type: 'StoreFull', message: 'no room yet' }],
  });
  expect(generating).toMatchObject({ state: 'paused', troubles: [{ ...problem, count: 1 }] });
  expect(generating.troubles).toHaveLength(1);
  const inference = { runId: 'r', phase: 'preparing', paused: problem } as const;
  expect(assemble({ ...BASE, inference })).toMatchObject({
    state: 'paused',
    troubles: [{ ...problem, count: 1 }],
  });
});

test('what is silently tried again is told, alike failures once, the most frequent first', () => {
  const away = (key: string) => ({
    type: 'StoreUnavailable',
    message: `the store cannot serve ${key}: 503 Service Unavailable (SlowDown)`,
  });
  const trouble = away('runs/r/attempts/0-7').message;
  const { troubles } = assemble({
    ...BASE,
    run: RUN,
    ranks: [{ ...RANK, heartbeats: RANK.heartbeats.map((beat) => ({ ...beat, trouble })) }],
    failures: [
      { type: 'EngineGone', message: 'the engine f/slot-0/abc-1 died' },
      away('runs/r/commits/0-1.json'),
      away('runs/r/commits/0-2.json'),
    ],
  });
  expect(troubles.map(({ type, count }) => [type, count])).toEqual([
    ['StoreUnavailable', 3],
    ['EngineGone', 1],
  ]);
  expect(troubles[0]).toMatchObject({
    message: expect.stringContaining('SlowDown'),
    wayOut: expect.stringContaining('reachable'),
  });
});

test('batches that killed engines are counted over the ranks', () => {
  const progress = { ...RANK.progress, suspects: [1, 4] };
  const ranks = [{ ...RANK, progress }, RANK, { ...RANK, progress }];
  expect(assemble({ ...BASE, run: RUN, ranks }).suspects).toBe(4);
  expect(assemble({ ...BASE, run: RUN, ranks: [RANK] }).suspects).toBeUndefined();
});

test('what the fleet holds for a run is shown while it goes on, and what it held afterwards', () => {
  const nodes = [{ node: 'a', loadingSeconds: 1, readySeconds: 2, drainingSeconds: 0 }];
  const others = [{ node: 'a', loadingSeconds: 9, readySeconds: 9, drainingSeconds: 9 }];
  const fleet = {
    ...FLEET,
    usage: [
      { user: 'inference/other', nodes: others },
      { user: 'inference/r', nodes },
    ],
  };
  expect(assemble({ ...BASE, run: RUN, fleet }).usage).toEqual({ nodes });
  expect(assemble({ ...BASE, run: RUN, fleet: FLEET }).usage).toBeUndefined();
  const usage = { nodes, generateSeconds: 3 };
  const result = { runId: 'r', state: 'completed' as const, usage };
  expect(assemble({ ...BASE, ended: { status: 'COMPLETED', result } }).usage).toEqual(usage);
});
