import { describe, expect, it } from 'vitest';

import { applyFlags, days, scheduleFlagOf } from '../../../src/cli/schedule-options.js';
import { checkSchedule } from '../../../src/client/schedules.js';
import type { ClientError } from '../../../src/client/errors.js';
import { SPEC_HASH, fakeSpec } from '../../support/fake-run.js';

const inference = {
  run: fakeSpec('template', 1),
  specHash: SPEC_HASH,
  cluster: { name: 'ray', nodes: { provider: 'local' } },
  fleet: { name: 'models', engines: 1 },
};
const base = { run: { schedule: 'nightly', inference, timing: { timeZone: 'UTC' } }, policies: {} };
const check = (flags: Parameters<typeof applyFlags>[0], before: typeof base = base) =>
  checkSchedule(applyFlags(flags, before), scheduleFlagOf);
const problemsOf = (flags: Parameters<typeof applyFlags>[0]): string => {
  try {
    check(flags);
    return '';
  } catch (error) {
    return (error as ClientError).message;
  }
};

it('days of the week are names, lists and ranges, also over the weekend', () => {
  expect(days('mon-wed')).toEqual(['mon', 'tue', 'wed']);
  expect(days('Sat,sun')).toEqual(['sat', 'sun']);
  expect(days('fri-mon')).toEqual(['fri', 'sat', 'sun', 'mon']);
  expect(days('monday')).toEqual(['monday']);
});

describe('the options of a schedule', () => {
  it('have defaults that lose no night', () => {
    const { run, policies } = check({ cron: ['0 2 * * *'], input: '/data/{date}' });
    expect(policies).toEqual({
      overlap: 'buffer-all',
      catchUpSeconds: 259_200,
      pauseOnFailure: false,
    });
    expect(run).toMatchObject({ runId: '{schedule}-{date}', noInput: 'fail', notify: [] });
  });

  it('change what they name and leave the rest', () => {
    const before = check({ cron: ['0 2 * * *'], input: '/in/{date}', keepLast: 3, jitter: 60 });
    const { run } = check({ at: ['03:30'], on: ['mon'], keepDays: 7 }, before);
    expect(run.timing).toEqual({
      cron: [],
      at: ['03:30'],
      on: ['mon'],
      timeZone: 'UTC',
      jitterSeconds: 60,
    });
    expect(run).toMatchObject({ input: '/in/{date}', retention: { keepLast: 3, keepDays: 7 } });
  });

  it('sign webhooks by reference and run commands as they are', () => {
    const { run } = check({
      cron: ['0 2 * * *'],
      input: '/in/{date}',
      notifyUrl: ['https://example.org/hook'],
      notifySecretEnv: 'HOOK_KEY',
      notifyCommand: [['mail', '-s', 'done']],
      notifyEnv: { TO: 'me' },
    });
    expect(run.notify).toEqual([
      { kind: 'webhook', url: 'https://example.org/hook', secret: { env: 'HOOK_KEY' } },
      { kind: 'command', command: ['mail', '-s', 'done'], env: { TO: 'me' } },
    ]);
  });

  it('name what holds a URL', () => {
    const { run } = check({
      cron: ['0 2 * * *'],
      input: '/in/{date}',
      notifyUrlEnv: ['HOOK_URL'],
      notifyUrlFile: ['/run/secrets/hook'],
      notifySecretFile: '/key',
    });
    const secret = { file: '/key' };
    expect(run.notify).toEqual([
      { kind: 'webhook', urlFrom: { env: 'HOOK_URL' }, secret },
      { kind: 'webhook', urlFrom: { file: '/run/secrets/hook' }, secret },
    ]);
    const both = { kind: 'webhook', url: 'https://example.org', urlFrom: { env: 'HOOK_URL' } };
    for (const notify of [[both], [{ kind: 'webhook' }]]) {
      expect(() => checkSchedule({ run: { ...run, notify }, policies: {} })).toThrow(
        /needs its URL/u,
      );
    }
  });

  it('say how those are told who are there already, and replace only their kind', () => {
    const before = check({
      cron: ['0 2 * * *'],
      input: '/in/{date}',
      notifyUrl: ['https://example.org/a', 'https://example.org/b'],
      notifyCommand: [['mail']],
    });
    const secret = { env: 'HOOK_KEY' };
    const signed = check({ notifySecretEnv: 'HOOK_KEY', notifyEnv: { TO: 'me' } }, before);
    expect(signed.run.notify).toEqual([
      { kind: 'webhook', url: 'https://example.org/a', secret },
      { kind: 'webhook', url: 'https://example.org/b', secret },
      { kind: 'command', command: ['mail'], env: { TO: 'me' } },
    ]);
    expect(check({ notifyUrl: ['https://example.org/c'] }, signed).run.notify).toEqual([
      { kind: 'webhook', url: 'https://example.org/c' },
      { kind: 'command', command: ['mail'], env: { TO: 'me' } },
    ]);
    expect(check({ notifyCommand: [['write']] }, signed).run.notify).toMatchObject([
      { url: 'https://example.org/a', secret },
      { url: 'https://example.org/b', secret },
      { command: ['write'], env: {} },
    ]);
    expect(check({ keepLast: 1 }, signed).run.notify).toEqual(signed.run.notify);
  });

  it.each(['https://user:pw@example.org/hook', 'http://user@example.org'])(
    'are refused with a user or a password in a URL, without telling it: %s',
    (url) => {
      const problems = problemsOf({ cron: ['0 2 * * *'], input: '/in', notifyUrl: [url] });
      expect(problems).toMatch(/--notify-url.*: holds a user or a password/u);
      expect(problems).not.toContain('user:pw');
    },
  );

  it('are refused when nobody is told whom they could be for', () => {
    const flags = { cron: ['0 2 * * *'], input: '/in/{date}' };
    expect(problemsOf({ ...flags, notifySecretEnv: 'KEY', notifyCommand: [['mail']] })).toMatch(
      /--notify-secret-env: there is no webhook/u,
    );
    expect(problemsOf({ ...flags, notifySecretFile: '/key' })).toMatch(/--notify-secret-file/u);
    expect(problemsOf({ ...flags, notifyEnv: { TO: 'me' } })).toMatch(/--notify-env: .* command/u);
  });

  it('are told all that is wrong with them at once, by the names of the flags', () => {
    const problems = problemsOf({
      at: ['25:00'],
      on: ['monday'],
      overlap: 'wait',
      jitter: 'long',
      catchUp: 1,
      input: '/in/{date}',
      keepLast: 0,
      notifyUrl: ['ftp://example.org'],
    });
    for (const flag of [
      ...['--at', '--on', '--overlap', '--jitter', '--catch-up', '--keep-last'],
      '--notify-url',
    ]) {
      expect(problems).toContain(flag);
    }
  });

  it.each([
    [{ input: '/in/{date}' }, /--cron: say when/u],
    [{ cron: ['0 2 * * *'], on: ['mon'], input: '/in/{date}' }, /--on: days need/u],
    [{ cron: ['0 2 * * *'], input: '/in/{dat}' }, /--input: \{dat\} is not known/u],
    [{ cron: ['0 2 * * *'], input: '/in/{date' }, /--input: a brace of \/in\/\{date has no other/u],
    [{ cron: ['0 2 * * *'], input: '/in', output: '/out.jsonl' }, /--output: holds no \{date\}/u],
    [{ cron: ['0 2 * * *'], input: '/in', timeZone: 'Mars' }, /--time-zone: Mars is no/u],
    [{ cron: ['0 2 * * *'], input: '/in', runId: '{runId}' }, /--run-id: \{runId\} is itself/u],
  ])('are refused when they are %j', (flags, message) => {
    expect(problemsOf(flags)).toMatch(message);
  });
});
