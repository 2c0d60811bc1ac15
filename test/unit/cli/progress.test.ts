import { expect, test } from 'vitest';

import type { RunSnapshot } from '../../../src/client/snapshot.js';
import { etaSeconds, RateWindow } from '../../../src/cli/progress/rate.js';
import {
  formatSeconds,
  newsKey,
  renderLine,
  renderProgress,
} from '../../../src/cli/progress/render.js';

const RATES = { rowsPerSecond: 2, tokensPerSecond: 512.4 };

const GENERATING: RunSnapshot = {
  runId: 'run-1',
  state: 'in_progress',
  phase: 'generating',
  startedAt: 0,
  at: 75_400,
  totalRows: 200,
  doneRows: 50,
  failedRows: 0,
  completionTokens: 1600,
  ranks: 4,
  retries: 1,
  troubles: [],
  cluster: { name: 'local', state: 'ready', nodesUp: 2, nodesWanted: 2 },
  engines: [
    { slot: 0, state: 'generating', rowsInFlight: 64, restarts: 0 },
    { slot: 1, state: 'loading', rowsInFlight: 0, restarts: 1, loadingSeconds: 12 },
  ],
};

test('a run that generates shows nodes, engines, rows, tokens per second, retries and the time left', () => {
  expect(renderProgress(GENERATING, RATES, 80).split('\n')).toEqual([
    'run-1  in_progress, generating (1m15s)',
    'cluster  local: ready, 2/2 nodes up',
    'engine 0  generating, 64 rows in flight',
    'engine 1  loading, 12s, restarted 1x',
    `[${'='.repeat(12)}${' '.repeat(38)}]  25% 50/200 rows`,
    '512 tokens/s, 0 failed, 1 retrying, ETA 1m15s',
  ]);
});

test('before rows are known, the phases are shown and no bar', () => {
  const { totalRows: _, ...before } = GENERATING;
  const lines = renderProgress({ ...before, phase: 'loading engines' }, RATES, 80).split('\n');
  expect(lines[0]).toBe('run-1  in_progress, loading engines (1m15s)');
  expect(lines.some((line) => line.startsWith('['))).toBe(false);
});

test('no line is wider than the terminal', () => {
  const reason = 'a very long reason why this engine is not there '.repeat(5);
  const engines = [{ slot: 0, state: 'dead', rowsInFlight: 0, restarts: 0, reason }];
  for (const width of [40, 60, 120]) {
    for (const line of renderProgress({ ...GENERATING, engines }, RATES, width).split('\n')) {
      expect(line.length).toBeLessThanOrEqual(width);
    }
  }
});

test('many engines are counted instead of listed', () => {
  const engines = Array.from({ length: 64 }, (_, slot) => ({
    slot,
    state: slot < 60 ? 'ready' : 'restarting',
    rowsInFlight: 0,
    restarts: 0,
  }));
  const text = renderProgress({ ...GENERATING, engines }, RATES, 80);
  expect(text).toContain('engines  60 ready, 4 restarting');
});

test('a plain line says why an engine is not there, on the same line', () => {
  const reason = 'waits for room\n  that something else holds';
  const engines = [
    { slot: 0, state: 'ready', rowsInFlight: 0, restarts: 0 },
    { slot: 1, state: 'placing', rowsInFlight: 0, restarts: 0 },
  ];
  const waiting = engines.map((engine) => (engine.slot === 1 ? { ...engine, reason } : engine));
  const line = renderLine({ ...GENERATING, engines: waiting }, RATES);
  expect(line).toMatch(/ \| engine 1 waits for room that something else holds$/u);
  expect(newsKey({ ...GENERATING, engines: waiting })).not.toBe(
    newsKey({ ...GENERATING, engines }),
  );
});

test('the last percent is shown only when every row is done', () => {
  expect(renderProgress({ ...GENERATING, doneRows: 199 }, RATES, 80)).toContain(' 99% 199/200');
  expect(renderProgress({ ...GENERATING, doneRows: 200 }, RATES, 80)).toContain('100% 200/200');
});

test('a run that is over shows how long it took and no time left', () => {
  const text = renderProgress({ ...GENERATING, state: 'completed', phase: 'done' }, undefined, 80);
  expect(text).toContain('completed, after 1m15s');
  expect(text).not.toMatch(/ETA|tokens\/s/u);
});

test('a log line says the same in one line', () => {
  expect(renderLine({ ...GENERATING, failedRows: 3 }, RATES)).toBe(
    'generating (1m15s) | 50/200 rows | 3 failed | 1 retrying | 1 generating, 1 loading | ' +
      '512 tokens/s | 1m15s left',
  );
});

test('a log has news when rows, engines or the phase change, not when time passes', () => {
  const key = newsKey(GENERATING);
  expect(newsKey({ ...GENERATING, at: 99_000, completionTokens: 9_999 })).toBe(key);
  expect(newsKey({ ...GENERATING, doneRows: 51 })).not.toBe(key);
  expect(newsKey({ ...GENERATING, phase: 'finalizing' })).not.toBe(key);
  expect(newsKey({ ...GENERATING, engines: [] })).not.toBe(key);
});

test('rates are those of the last seconds, not of the whole run', () => {
  const window = new RateWindow(10_000);
  for (let second = 0; second <= 100; second++) {
    const tokens = second < 80 ? second : 80 + (second - 80) * 100;
    window.add({ at: second * 1000, rows: second, tokens });
  }
  expect(window.rates()).toEqual({ rowsPerSecond: 1, tokensPerSecond: 100 });
});

test('a count that falls, because an attempt was given up, gives no negative rate', () => {
  const window = new RateWindow();
  window.add({ at: 0, rows: 100, tokens: 1000 });
  window.add({ at: 5_000, rows: 90, tokens: 900 });
  expect(window.rates()).toEqual({ rowsPerSecond: 0, tokensPerSecond: 0 });
  window.add({ at: 10_000, rows: 100, tokens: 1000 });
  expect(window.rates()).toEqual({ rowsPerSecond: 2, tokensPerSecond: 20 });
});

test('nobody can tell the time left of a run that stands still or is not planned', () => {
  expect(etaSeconds(100, 40, 0)).toBeUndefined();
  expect(etaSeconds(undefined, 40, 1)).toBeUndefined();
  expect(etaSeconds(100, 40, 2)).toBe(30);
  expect(etaSeconds(100, 120, 2)).toBe(0);
});

test.each([
  [0.4, '0s'],
  [59.4, '59s'],
  [59.6, '1m00s'],
  [3599, '59m59s'],
  [3725, '1h02m'],
])('%d seconds are %s', (seconds, text) => {
  expect(formatSeconds(seconds)).toBe(text);
});

test('a pause is shown with its way out, and what is tried again with its reason', () => {
  const full = { type: 'StoreFull', message: 'no room in /store', wayOut: 'Free some.', count: 6 };
  const paused: RunSnapshot = { ...GENERATING, state: 'paused', troubles: [full] };
  expect(renderProgress(paused, RATES, 80).split('\n').slice(-2)).toEqual([
    'paused: no room in /store',
    'way out: Free some.',
  ]);
  expect(renderLine(paused, RATES)).toContain('paused: no room in /store | Free some.');
  const away = { type: 'StoreUnavailable', message: 'the store cannot serve x', count: 3 };
  const gone = { type: 'EngineGone', message: 'it died', count: 1 };
  expect(renderProgress({ ...GENERATING, troubles: [away, gone] }, RATES, 80)).toContain(
    'retrying 3x: the store cannot serve x (and 1 more)',
  );
  expect(newsKey({ ...GENERATING, troubles: [away] })).not.toBe(newsKey(GENERATING));
  expect(newsKey({ ...GENERATING, troubles: [away] })).toBe(
    newsKey({ ...GENERATING, troubles: [{ ...away, count: 4, message: 'the same, other key' }] }),
  );
});

test('batches in quarantine are told, and are news', () => {
  const suspects = { ...GENERATING, suspects: 2 };
  expect(renderLine(suspects, RATES)).toContain('1 retrying | 2 in quarantine');
  expect(renderProgress(suspects, RATES, 80)).toContain('1 retrying, 2 in quarantine');
  expect(newsKey(suspects)).not.toBe(newsKey(GENERATING));
});
