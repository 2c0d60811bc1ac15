import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { decodedTokens } from '../../chaos/checker/ledger.js';
import { findLeaks } from '../../chaos/checker/leaks.js';
import { checkOrphans, litterOf } from '../../chaos/checker/leftovers.js';
import { checkRows } from '../../chaos/checker/rows.js';
import { checkTokens } from '../../chaos/checker/tokens.js';
import type { Home } from '../../chaos/lab/home.js';
import { poll, processesOf } from '../../chaos/lab/processes.js';
import { FolderReader } from '../../chaos/store/reader.js';
import { ROWS, StoredRun } from './stored-run.js';

let run: StoredRun;
beforeEach(() => {
  run = new StoredRun();
});
afterEach(() => run.remove());

const wrong = async (): Promise<string[]> => {
  await run.view.poll();
  const { violations } = await checkRows(run.subject);
  const { violations: tokens } = checkTokens(run.subject);
  return [...run.view.violations, ...violations, ...tokens].map(({ code }) => code);
};

/** A checker that finds nothing proves nothing: each thing that must not be is shown to be found. */
describe('the checker of a run', () => {
  it('finds nothing wrong with a run that is right', async () => {
    run.plan();
    run.generate();
    run.finalize();
    expect(await wrong()).toEqual([]);
  });

  it('finds a row that is lost, one that is doubled and one that was never asked for', async () => {
    run.plan();
    run.generate();
    const lines = Array.from({ length: ROWS }, (_, row) => run.answer(row, 't-1'));
    const foreign = { ...run.answer(3, 't-1'), custom_id: 'nobody' };
    run.finalize([...lines.slice(0, 3), foreign, ...lines.slice(4), ...lines.slice(11)]);
    expect(await wrong()).toEqual(
      expect.arrayContaining(['row-lost', 'row-doubled', 'row-foreign']),
    );
  });

  it('finds the answer to another prompt', async () => {
    run.plan();
    run.generate();
    const lines = Array.from({ length: ROWS }, (_, row) => run.answer(row, 't-1'));
    const others = { ...run.answer(5, 't-1'), custom_id: run.workload.rows[4]?.customId };
    run.finalize(lines.with(4, others));
    expect(await wrong()).toEqual(['wrong-answer']);
  });

  it('finds lines that are not in input order', async () => {
    run.plan();
    run.generate();
    run.finalize(Array.from({ length: ROWS }, (_, row) => run.answer(ROWS - 1 - row, 't-1')));
    expect(await wrong()).toEqual(['order']);
  });

  it('finds a row that failed though nothing was wrong with it', async () => {
    run.plan();
    run.generate();
    const lines = Array.from({ length: ROWS }, (_, row) => run.answer(row, 't-1'));
    const error = { ...run.answer(0, 't-1'), response: null, error: { code: 'engine_gone' } };
    run.finalize(lines.slice(1), [error]);
    expect(await wrong()).toEqual(['exit-code', 'innocent-failed']);
  });

  it('finds a commit that was replaced after it was seen', async () => {
    run.plan();
    run.generate();
    await run.view.poll();
    run.commit(1, 't1-2', run.attempt(1, 't1-2', run.rowsOf(1)), 'f/slot-1/n-2');
    run.finalize();
    expect(await wrong()).toContain('commit-replaced');
  });

  it('finds a commit whose attempt is not whole', async () => {
    run.plan();
    run.generate();
    const attempt = run.attempt(2, 't2-1', run.rowsOf(2).slice(1));
    run.commit(2, 't2-1', `${attempt} `);
    run.finalize();
    expect(await wrong()).toEqual(['half-visible', 'commit-rows']);
  });

  it('finds an output that is visible before its manifest, and a manifest before its output', async () => {
    run.plan();
    run.generate();
    run.write('output.jsonl', '');
    await run.view.poll();
    expect(run.view.violations.map(({ code }) => code)).toEqual(['half-visible']);
    run.finalize();
    run.write('final/f/output.jsonl', 'half');
    await run.view.poll();
    expect(run.view.violations.map(({ code }) => code)).toEqual(['half-visible', 'half-visible']);
  });

  it('finds a plan that is visible before its requests', async () => {
    run.plan();
    run.write('plan/p/requests.jsonl', 'reque');
    run.generate();
    run.finalize();
    expect(await wrong()).toEqual(['half-visible']);
  });

  it('allows a torn line at the end of an attempt and finds one in the middle', async () => {
    run.plan();
    const file = path.join(run.store, 'runs/run-1/attempts/0000-000000/t0-1.jsonl');
    run.attempt(0, 't0-1', [0]);
    appendFileSync(file, '{"row":1,"promp');
    await run.view.poll();
    expect(run.view.violations).toEqual([]);
    appendFileSync(file, '\n{"row":2}\n');
    await run.view.poll();
    expect(run.view.violations.map(({ code }) => code)).toEqual(['torn']);
  });

  it('finds finished rows that are generated again after a fault', async () => {
    run.plan();
    run.attempt(0, 't0-1', [0, 1]);
    await run.view.snapshot(1);
    run.commit(0, 't0-2', run.attempt(0, 't0-2', [1, 2, 3], ['t0-1', [0]]));
    await run.view.poll();
    const { violations } = checkTokens(run.subject);
    expect(violations.map(({ code }) => code)).toEqual(['finished-row-again']);
  });

  it('allows that rows are finished twice which were being decoded at a fault', async () => {
    run.plan();
    run.attempt(0, 't0-1', [0, 1]);
    const { decoding } = await run.view.snapshot(1);
    expect(decoding).toEqual([2, 3]);
    run.generate();
    // The first engine was only frozen, and finishes what it was at.
    run.attempt(0, 't0-1', [0, 1, 2, 3]);
    run.commit(0, 't0-2', run.attempt(0, 't0-2', [2, 3], ['t0-1', [0, 1]]));
    run.finalize();
    expect(await wrong()).toEqual([]);
    expect(checkTokens(run.subject).redone.seen).toBe(6);
  });

  it('finds tokens that engines decoded and no answer has, beyond those that were at risk', async () => {
    run.plan();
    run.attempt(0, 't0-1', [0, 1]);
    const snapshot = await run.view.snapshot(1);
    run.commit(0, 't0-2', run.attempt(0, 't0-2', [2, 3], ['t0-1', [0, 1]]));
    await run.view.poll();
    expect(checkTokens(run.subject, 6).violations).toEqual([]);
    expect(checkTokens(run.subject, 7).violations).toMatchObject([{ code: 'redone-beyond-bound' }]);
    // What hits no engine of a run puts nothing of it at risk.
    snapshot.atRisk = [];
    expect(checkTokens(run.subject, 1).violations).toMatchObject([{ code: 'redone-beyond-bound' }]);
  });

  it('finds files for people that are not what the manifest says', async () => {
    run.plan();
    run.generate();
    run.finalize();
    run.write('output.jsonl', '');
    expect(await wrong()).toEqual(['published']);
  });

  it('finds a cancellation that throws away what was committed', async () => {
    run.plan();
    run.generate();
    const answers = run.workload.rows.map((_, row) => run.answer(row, 't-1'));
    const thrown = run.workload.rows[0]?.customId;
    run.finalize(answers.slice(1), [{ custom_id: thrown, error: { code: 'batch_cancelled' } }]);
    await run.view.poll();
    const cancelled = { ...run.subject, cancelled: true, exitCode: 1 };
    // As its manifest came with the last commit, the row may have been late.
    expect((await checkRows(cancelled)).violations).toEqual([]);
    run.view.seenAt.manifest = Date.now() + 60_000;
    expect((await checkRows(cancelled)).violations).toMatchObject([{ code: 'innocent-failed' }]);
  });

  it('finds more tokens generated twice than were being decoded', async () => {
    run.plan();
    run.generate();
    run.attempt(0, 't0-2', [0, 1, 2, 3]);
    run.finalize();
    expect(await wrong()).toEqual(['redone-beyond-bound']);
  });

  it('finds a run that failed, and one that says it was cancelled though nobody asked', async () => {
    run.plan();
    run.generate();
    run.finalize();
    await run.view.poll();
    const failed = await checkRows({ ...run.subject, status: 'FAILED', exitCode: 1 });
    expect(failed.violations.map(({ code }) => code)).toEqual(['run-failed', 'exit-code']);
  });
});

describe('a run without results', () => {
  it('has lost nothing when it was cancelled before its first batch, else everything', async () => {
    const cancelled = { ...run.subject, cancelled: true, exitCode: 1 };
    expect(await checkRows(cancelled)).toMatchObject({ violations: [], counts: { lost: 0 } });
    const { violations, counts } = await checkRows(run.subject);
    expect(violations.map(({ code }) => code)).toContain('no-output');
    expect(counts.lost).toBe(run.workload.rows.length);
    run.plan();
    run.generate();
    await run.view.poll();
    expect((await checkRows(cancelled)).counts.lost).toBe(run.workload.rows.length);
  });
});

describe('the search for what is left and what leaks', () => {
  it('finds files that never became whole, and those that nobody reads', async () => {
    run.plan();
    run.generate();
    run.finalize();
    const store = new FolderReader(run.store);
    expect(await litterOf(store)).toEqual([]);
    run.write('commits/.tmp-1', '');
    run.write('plan/q/requests.jsonl', '');
    run.write('final/g/output.jsonl', '');
    const found = (await litterOf(store)).map(({ code }) => code);
    expect(found.toSorted()).toEqual(['temporary-file', 'unread-file', 'unread-file']);
  });

  it('finds processes of vLLM that belong to no engine in use, and none that do', async () => {
    const env = { RANKFLOW_HOME: run.home };
    const start = (title: string): ChildProcess =>
      spawn('bash', ['-c', `exec -a ${title} sleep 60`], { env, detached: true, stdio: 'ignore' });
    const started = ['ray::EngineActor', 'VLLM::EngineCore', 'raylet'].map(start);
    const [engine = 0, core = 0] = started.map(({ pid }) => pid);
    const home = { folder: run.home } as Home;
    const codes = async (...pids: number[]): Promise<string[]> => {
      const engines = async () => pids.map((pid, slot) => ({ slot, pid }));
      const found = await checkOrphans(home, engines, 0.2);
      return found.map(({ message }) => message.replace(/^pid \d+ \((\S+).*$/u, '$1'));
    };
    try {
      await poll(
        () => processesOf(run.home).some(({ command }) => /raylet/u.test(command)) || undefined,
        5,
      );
      expect(await codes(engine, core)).toEqual([]);
      expect(await codes(engine)).toEqual(['VLLM::EngineCore']);
      expect(await codes(core)).toEqual(['ray::EngineActor']);
    } finally {
      for (const child of started) child.kill('SIGKILL');
    }
  });

  it('finds a prompt, an answer and a secret in any bytes, and never repeats them', () => {
    const secrets = [
      { what: 'prompt', name: 'a prompt', text: 'canary' },
      { what: 'secret', name: 'a token', text: 'hf_123' },
    ] as const;
    const file = path.join(run.home, 'bytes');
    writeFileSync(file, '');
    const leaks = findLeaks(
      Buffer.from('\u0000canary hf_123 simulated 0123abcd 123abcd0'),
      'a log',
      secrets,
    );
    expect(leaks.map(({ code }) => code)).toEqual(['prompt-leak', 'secret-leak', 'answer-leak']);
    expect(JSON.stringify(leaks)).not.toMatch(/canary|hf_123|0123abcd/u);
    expect(findLeaks(Buffer.from('{"backend":"simulated"}'), 'a log', secrets)).toEqual([]);
  });
});

describe('the ledgers of simulated engines', () => {
  it('count what was decoded for a run, rows that were lost with their engine included', () => {
    const folder = path.join(run.home, 'ledger');
    mkdirSync(folder);
    const lines = (...all: object[]): string => all.map((one) => JSON.stringify(one)).join('\n');
    writeFileSync(
      path.join(folder, '1.jsonl'),
      `${lines({ request: 'run-1-a', tokens: 7 }, { request: 'run-1-a', decoded: 7 }, { request: 'run-1-b', tokens: 5 })}\n{"requ`,
    );
    writeFileSync(
      path.join(folder, '2.jsonl'),
      lines(
        { request: 'run-1-c', tokens: 9 },
        { request: 'run-1-c', decoded: 2 },
        { request: 'run-2-a', tokens: 4 },
      ),
    );
    expect(decodedTokens(folder, 'run-1')).toBe(7 + 5 + 2);
    expect(decodedTokens(folder, 'run-3')).toBeUndefined();
  });
});
