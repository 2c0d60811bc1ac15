import { describe, expect, it } from 'vitest';

import type { ClusterSpec, SshNode, SshProvider } from '../../../src/contracts/cluster.js';
import { otherNodes } from '../../../src/workflows/refusals.js';
import { sshProvider } from '../../support/ssh-spec.js';

const lab = (change: Partial<SshProvider> = {}): ClusterSpec => ({
  name: 'lab',
  nodes: { ...sshProvider(['a', 'b']), ...change },
});
const [, b, c] = sshProvider(['a', 'b', 'c']).workers as [SshNode, SshNode, SshNode];

describe('a cluster that is asked for with other settings', () => {
  it('is refused with what differs, and the way in which hosts are changed', () => {
    const workers = [{ ...b, labels: { zone: 'x' } }, c];
    const { type, message, wayOut } = otherNodes(lab(), lab({ workers, count: 1 }));
    expect(type).toBe('ClusterMismatch');
    expect(message).toBe(
      'cluster lab is up with other settings: workers.a (not asked for), ' +
        'workers.b.labels (asked for, and not there), workers.c (asked for, and not there), ' +
        'count of workers (2, and 1 is asked for)',
    );
    expect(wayOut).toMatch(/`rankflow cluster add FILE`.*`rankflow cluster remove lab NODE`/u);
    expect(wayOut).toMatch(/`rankflow cluster scale lab COUNT`/u);
  });

  it('names settings as its file does, and has to be brought up anew for them', () => {
    const asked = lab({
      ports: { gcs: 6379, dashboard: 8266, client: 10_001 },
      environment: { python: '/venv/bin/python', variables: { KEY: 'hush' } },
      idleMinutes: 30,
      stepTimeoutSeconds: 60,
      setup: [['sh', '-c', 'hush']],
    });
    const { message, wayOut } = otherNodes(lab(), asked);
    expect(message.replace(/^.*: /u, '').split(', ').toSorted()).toEqual(
      [
        ...['ports.dashboard (8265', 'and 8266 is asked for)'],
        ...['environment.variables (asked for', 'and not there)'],
        ...['idleTimeoutMinutes (asked for', 'and not there)'],
        ...['setupTimeoutSeconds (900', 'and 60 is asked for)', 'setup'],
      ].toSorted(),
    );
    expect(message).not.toContain('hush');
    expect(wayOut).toContain('`rankflow cluster down lab`');
  });

  it('is not described by ten pages of what differs', () => {
    const names = Array.from({ length: 20 }, (_, index) => `n${index}`);
    const { message } = otherNodes(lab(), { name: 'lab', nodes: sshProvider(names, 2) });
    expect(message).toMatch(/, and 14 more$/u);
  });

  it('is told apart also where it is not over ssh', () => {
    const at = (dashboardUrl: string): ClusterSpec => ({
      name: 'theirs',
      nodes: { provider: 'existing', address: 'h:6379', dashboardUrl },
    });
    expect(otherNodes(at('http://h:8265'), at('http://h:8266')).message).toBe(
      'cluster theirs is up with other settings: ' +
        'dashboardUrl (http://h:8265, and http://h:8266 is asked for)',
    );
    const local: ClusterSpec = { name: 'lab', nodes: { provider: 'local', workers: 0 } };
    expect(otherNodes(lab(), local).message).toBe(
      'cluster lab is up as a head node on 10.0.0.1 with hosts over ssh, and a head node alone is asked for',
    );
  });
});
