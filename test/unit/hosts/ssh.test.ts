import { execFileSync } from 'node:child_process';

import { describe, expect, it } from 'vitest';

import { jumpHost } from '../../../src/hosts/jump.js';
import { quote, remoteCommand, sshArguments } from '../../../src/hosts/ssh.js';
import { sshProblem } from '../../../src/hosts/ssh-problem.js';

const target = { name: 'worker-1', host: '10.0.0.2' };

/** What ssh makes of arguments, without connecting. */
const parsed = (args: readonly string[]): string =>
  execFileSync('ssh', ['-G', ...args.filter((word) => word !== '--')], { encoding: 'utf8' });

describe('ssh', () => {
  it('asks nobody, trusts only known hosts, gives up in time and leaves no master behind', () => {
    const settings = parsed(sshArguments({ ...target, configFile: '/dev/null' }));
    expect(settings).toMatch(/^batchmode yes$/mu);
    expect(settings).toMatch(/^stricthostkeychecking (yes|true)$/mu);
    expect(settings).toMatch(/^connecttimeout 10$/mu);
    expect(settings).toMatch(/^serveraliveinterval 5$/mu);
    expect(settings).toMatch(/^controlmaster (no|false)$/mu);
    expect(settings).not.toMatch(/^controlpath \//mu);
  });

  it("takes the cluster's own key and known hosts, whatever their paths hold", () => {
    const knownHostsFile = '/clusters/my % cluster/known hosts';
    const identityFile = '/etc/hostname';
    const settings = parsed(
      sshArguments({
        ...target,
        configFile: '/dev/null',
        user: 'ray',
        port: 2222,
        identityFile,
        knownHostsFile,
      }),
    );
    expect(settings).toContain('userknownhostsfile /clusters/my % cluster/known hosts');
    expect(settings).toContain('globalknownhostsfile /dev/null');
    expect(settings).toContain('identityfile /etc/hostname');
    expect(settings).toMatch(/^identitiesonly yes$/mu);
    expect(settings).toMatch(/^user ray$/mu);
    expect(settings).toMatch(/^port 2222$/mu);
  });

  it('goes through jump hosts with the same strictness and files', () => {
    const args = sshArguments({ ...target, knownHostsFile: '/k', jump: ['a@gate:2200', 'inner'] });
    const outer = args.find((word) => word.startsWith('ProxyCommand='));
    expect(outer).toMatch(
      /^ProxyCommand=ssh .*StrictHostKeyChecking=yes.* -W \[%h\]:%p -- inner$/u,
    );
    expect(outer).toContain('-p 2200');
    expect(outer).toContain('-l a');
    expect(outer?.match(/StrictHostKeyChecking=yes/gu)).toHaveLength(2);
    // The way to the first host is written for the second ssh: one expansion later.
    expect(outer).toContain('[%%h]:%%p');
  });

  it('never takes a host for an option', () => {
    const args = sshArguments({ name: 'bad', host: '-oProxyCommand=touch /tmp/x' });
    expect(args.indexOf('--')).toBe(args.length - 2);
  });

  it('reads jump hosts as ssh does', () => {
    expect(jumpHost('me@gate:22')).toEqual({ user: 'me', host: 'gate', port: 22 });
    expect(jumpHost('gate')).toEqual({ host: 'gate' });
    expect(jumpHost('[fe80::1]:2200')).toEqual({ host: 'fe80::1', port: 2200 });
  });
});

describe('a command for another host', () => {
  const run = (command: readonly string[], env?: Record<string, string>): string =>
    execFileSync('sh', ['-c', remoteCommand(command, { ...(env && { env }) })], {
      encoding: 'utf8',
    });

  it('arrives word by word, whatever the words hold', () => {
    const words = [
      'a b',
      "it's",
      '$HOME',
      '`id`',
      '*',
      '',
      '"',
      '\\',
      'new\nline',
      '; exit 3',
      '-n',
    ];
    expect(run(['printf', '[%s]', ...words])).toBe(words.map((word) => `[${word}]`).join(''));
  });

  it('has its variables, and ends in time on the host itself', () => {
    expect(run(['sh', '-c', 'echo "$A"'], { A: "x 'y'" })).toBe("x 'y'\n");
    const command = remoteCommand(['sleep', '60'], { timeoutMs: 500 });
    const started = Date.now();
    expect(() => execFileSync('sh', ['-c', command])).toThrow();
    expect(Date.now() - started).toBeLessThan(10_000);
  });

  it('cannot give the exit code of ssh itself', () => {
    let status: unknown;
    try {
      run(['sh', '-c', 'exit 255']);
    } catch (error) {
      status = (error as { status?: unknown }).status;
    }
    expect(status).toBe(254);
  });

  it('is quoted only where it must be', () => {
    expect(quote('--num-cpus=2')).toBe('--num-cpus=2');
    expect(quote('a b')).toBe("'a b'");
  });
});

describe('what ssh says', () => {
  const cases = [
    [
      'ssh: connect to host 10.0.0.2 port 22: No route to host',
      'HostUnreachable',
      /does not answer on port 22/u,
    ],
    [
      'ssh: Could not resolve hostname nowhere: Name or service not known',
      'HostUnreachable',
      /resolved/u,
    ],
    ['root@10.0.0.2: Permission denied (publickey).', 'HostAccessDenied', /refuses the key/u],
    [
      'No ED25519 host key is known for 10.0.0.2 and you have requested strict checking.\nHost key verification failed.',
      'HostKeyRefused',
      /not known/u,
    ],
    [
      '@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@\nHost key verification failed.',
      'HostKeyRefused',
      /another host key/u,
    ],
    ['Timeout, server 10.0.0.2 not responding.', 'HostUnreachable', /does not answer/u],
  ] as const;
  it.each(cases)('%s', (said, type, message) => {
    const error = sshProblem({ ...target, knownHostsFile: '/k' }, said);
    expect(error.type).toBe(type);
    expect(error.message).toMatch(message);
    expect(error.message).toMatch(/^worker-1: /u);
    expect(error.wayOut).not.toBe('');
  });

  it('names the known-hosts file that is to be mended', () => {
    const error = sshProblem(
      { ...target, knownHostsFile: '/k' },
      'No ED25519 host key is known for x',
    );
    expect(error.wayOut).toContain('ssh-keyscan 10.0.0.2 >> /k');
  });

  it('is about the host to go through when that is the one that ssh names', () => {
    const behind = { ...target, knownHostsFile: '/k', jump: ['me@10.0.0.20:2200', 'inner'] };
    const closed = '\nkex_exchange_identification: Connection closed by remote host';
    const about = (said: string): string => {
      const { message, wayOut } = sshProblem(behind, said + closed);
      return `${message.split(' (')[0]}. ${wayOut}`;
    };
    const unknown = (host: string): string =>
      `No ED25519 host key is known for ${host} and you have requested strict checking.\nHost key verification failed.`;
    expect(about(unknown('[10.0.0.20]:2200'))).toMatch(
      /^worker-1: the host key of 10\.0\.0\.20 is not known\..* add it: ssh-keyscan -p 2200 10\.0\.0\.20 >> \/k$/u,
    );
    expect(about(unknown('inner'))).toMatch(
      /^worker-1: the host key of inner is not known\..* add it: ssh -p 2200 me@10\.0\.0\.20 ssh-keyscan inner >> \/k$/u,
    );
    // That does not go through the others by itself.
    expect(about(unknown('10.0.0.2'))).toMatch(
      /^worker-1: the host key of 10\.0\.0\.2 is not known\..* add it: ssh -J me@10\.0\.0\.20:2200 inner ssh-keyscan 10\.0\.0\.2 >> \/k$/u,
    );
    expect(about('me@10.0.0.20: Permission denied (publickey).')).toMatch(
      /^worker-1: me@10\.0\.0\.20 refuses the key/u,
    );
    expect(about('ssh: connect to host 10.0.0.20 port 2200: Connection timed out')).toMatch(
      /^worker-1: 10\.0\.0\.20 does not answer on port 2200\./u,
    );
    expect(about('channel 0: open failed: connect failed: No route to host')).toMatch(
      /^worker-1: 10\.0\.0\.2 does not answer on port 22 through /u,
    );
  });
});
