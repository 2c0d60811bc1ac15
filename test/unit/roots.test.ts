import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { asyncLocalStorage, type Context } from '@temporalio/activity';
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { openJob } from '../../src/activities/jobs/submit.js';
import { runNotifyCommand } from '../../src/activities/notify.js';
import { findInput } from '../../src/activities/scheduled.js';
import { describeFailure } from '../../src/client/errors.js';
import { prepareRun } from '../../src/client/inference.js';
import { inspectInput } from '../../src/client/input.js';
import { inspectWorkingDirectory } from '../../src/client/job-package.js';
import { storedResult } from '../../src/client/stored.js';
import { allowedRoots, checkAllowed } from '../../src/roots.js';

const base = realpathSync(mkdtempSync(path.join(tmpdir(), 'rankflow-roots-')));
const at = (...names: string[]): string => path.join(base, ...names);
mkdirSync(at('root', 'deep'), { recursive: true });
mkdirSync(at('roots2'));
for (const file of [at('root', 'in.jsonl'), at('roots2', 'out.jsonl')]) writeFileSync(file, '{}\n');
symlinkSync(at('roots2'), at('root', 'link'));
symlinkSync(at('roots2', 'out.jsonl'), at('root', 'file.jsonl'));
symlinkSync(at('nowhere'), at('root', 'dangling'));
symlinkSync(at('root', 'deep'), at('root', 'inner'));
symlinkSync(at('root'), at('alias'));

beforeEach(() => vi.stubEnv('RANKFLOW_ALLOWED_ROOTS', `${at('root')}, s3://bucket/team/a`));
afterEach(() => vi.unstubAllEnvs());
afterAll(() => rmSync(base, { recursive: true, force: true }));

const OUTSIDE: Readonly<Record<string, string>> = {
  'a sibling whose name begins alike': at('roots2', 'out.jsonl'),
  'two dots': `${at('root')}/../roots2/out.jsonl`,
  'two dots that come back': `${at('root')}/deep/../in.jsonl`,
  'a link to a folder': at('root', 'link', 'out.jsonl'),
  'a link to a file': at('root', 'file.jsonl'),
  'a link that leads nowhere yet': at('root', 'dangling'),
  'what would be behind it': at('root', 'dangling', 'x'),
  'the folder above': base,
  'an address of a file': `file://${at('roots2', 'out.jsonl')}`,
  'two dots in an address': `file://${at('root')}/%2e%2e/roots2/out.jsonl`,
  'another bucket': 's3://bucket2/team/a/x',
  'a prefix that begins alike': 's3://bucket/team/ab/x',
  'two dots in a bucket': 's3://bucket/team/a/../b/x',
  'the same, written otherwise': 's3://bucket/team/a/%2e%2e/b/x',
  'two dots and what a parser drops': 's3://bucket/team/a/..?x/b',
  'the same with a fragment': 's3://bucket/team/a/..#x/b',
  'the same with a tab': 's3://bucket/team/a/.\t./b/x',
  'the same with a blank': 's3://bucket/team/a/.. ',
  'an empty part': 's3://bucket/team/a//x',
  'another kind of store': 'gs://bucket/team/a/x',
  'the bucket by its web address': 'https://bucket.s3.amazonaws.com/team/a/x',
  'a path that is not absolute': 'root/in.jsonl',
};

describe('with roots', () => {
  test.each(Object.entries(OUTSIDE))(
    '%s is refused, with one error that names them',
    (_, where) => {
      const refuse = (): void => checkAllowed(where);
      expect(refuse).toThrow(`(${at('root')}, s3://bucket/team/a)`);
      try {
        refuse();
      } catch (error) {
        expect(describeFailure(error)).toMatchObject({ type: 'PathRefused', exitCode: 2 });
      }
    },
  );

  test('what is below them is allowed, also through links that stay in', () => {
    for (const good of [
      ...[
        at('root'),
        at('root', 'in.jsonl'),
        at('root', 'new', 'folder'),
        at('root', 'inner', 'x'),
      ],
      ...[at('alias', 'in.jsonl'), at('root', '..names', 'x'), `file://${at('root', 'in.jsonl')}`],
      ...['s3://bucket/team/a', 's3://bucket/team/a/', 'S3://bucket/team/a/deep/x.jsonl'],
    ])
      expect(() => checkAllowed(good)).not.toThrow();
  });

  test('a root that is a link stands for what it leads to', () => {
    vi.stubEnv('RANKFLOW_ALLOWED_ROOTS', at('alias'));
    expect(() => checkAllowed(at('root', 'in.jsonl'))).not.toThrow();
    expect(() => checkAllowed(at('roots2', 'out.jsonl'))).toThrow('not below');
  });

  test('a root of which nobody can tell where it is allows nothing, and takes nothing from the others', () => {
    for (const roots of [[at('root', 'dangling')], [at('root', 'dangling'), at('roots2')]]) {
      vi.stubEnv('RANKFLOW_ALLOWED_ROOTS', roots.join(','));
      for (const where of ['/etc/hosts', at('root', 'in.jsonl'), at('root', 'dangling', 'x')]) {
        expect(() => checkAllowed(where), where).toThrow('not below');
      }
    }
    expect(() => checkAllowed(at('roots2', 'out.jsonl'))).not.toThrow();
  });

  test('a root that makes no sense allows nothing', () => {
    for (const root of ['relative', '/a/../b', 's3://', `${at('root')},s3://b/../c`]) {
      vi.stubEnv('RANKFLOW_ALLOWED_ROOTS', root);
      expect(() => checkAllowed(at('root', 'in.jsonl'))).toThrow('RANKFLOW_ALLOWED_ROOTS has');
    }
  });
});

test('everything is allowed when nothing is set', () => {
  for (const text of ['', ' , ']) {
    vi.stubEnv('RANKFLOW_ALLOWED_ROOTS', text);
    expect(allowedRoots()).toBeUndefined();
    for (const where of Object.values(OUTSIDE)) expect(() => checkAllowed(where)).not.toThrow();
  }
});

describe('where paths come in', () => {
  const outside = at('root', 'file.jsonl');
  const model = { model: 'm', backend: 'simulated' };
  const context = {
    heartbeat: () => {},
    cancelled: new Promise<never>(() => {}),
    cancellationSignal: new AbortController().signal,
  };
  const activity = {
    run: async <Input, Result>(work: (input: Input) => Promise<Result>, input: Input) =>
      asyncLocalStorage.run(context as unknown as Context, async () => work(input)),
  };
  const message = {
    schedule: 's',
    runId: 'r',
    date: '2026-01-01',
    state: 'completed' as const,
  };
  const notify = async (program: string) =>
    activity.run(runNotifyCommand, {
      notification: { kind: 'command', command: [program], env: {} },
      delivery: 'd',
      message: message as never,
    });

  test('an input outside is refused', async () => {
    await expect(inspectInput(outside)).rejects.toThrow('not below an allowed root');
    await expect(inspectInput('s3://other/x')).rejects.toThrow('not below an allowed root');
    expect(await inspectInput(at('root', 'in.jsonl'))).toMatchObject({ bytes: 3 });
  });

  test('a run with its input or its store outside is not prepared', async () => {
    const uri = at('root', 'in.jsonl');
    const prepare = async (input: string, store: string) =>
      prepareRun({ input: { uri: input }, model, store });
    await expect(prepare(outside, at('root'))).rejects.toThrow('not below an allowed root');
    await expect(prepare(uri, at('roots2'))).rejects.toThrow('not below an allowed root');
    expect((await prepare(uri, at('root', 'store'))).inference.run.store).toBe(at('root', 'store'));
  });

  test('the worker looks for itself, whatever a client sent', async () => {
    const find = async (input: string) =>
      activity.run(findInput, { input, wait: true, fail: false });
    await expect(find(outside)).rejects.toMatchObject({ type: 'PathRefused', nonRetryable: true });
    await expect(find('s3://other/x')).rejects.toMatchObject({ type: 'PathRefused' });
    expect(await find(at('root', 'in.jsonl'))).toEqual({ found: true });
    await expect(storedResult(at('roots2'), 'run')).rejects.toThrow('not below an allowed root');
    const spec = { store: at('root', 'link'), jobId: 'job' } as never;
    await expect(activity.run(openJob, { spec })).rejects.toThrow('not below an allowed root');
  });

  test('a command that tells how a run ended is a program below them', async () => {
    await expect(notify('/bin/true')).rejects.toMatchObject({
      type: 'PathRefused',
      nonRetryable: true,
    });
    const script = at('root', 'tell');
    writeFileSync(script, '#!/bin/sh\nexit 0\n', { mode: 0o755 });
    await notify(script);
    await expect(notify('tell')).rejects.toMatchObject({ type: 'PathRefused' });
  });

  test('a file that a working directory links to is not sent', async () => {
    await expect(inspectWorkingDirectory(at('root'))).rejects.toThrow('not below an allowed root');
    writeFileSync(at('root', 'deep', 'main.py'), '');
    expect((await inspectWorkingDirectory(at('root', 'deep'))).files).toHaveLength(1);
    await expect(inspectWorkingDirectory(at('roots2'))).rejects.toThrow('not below');
  });
});
