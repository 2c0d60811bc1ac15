import { describe, expect, it } from 'vitest';

import type { ReachOutcome } from '../../../../src/contracts/hosts.js';
import type { HostFinding, ReachCell } from '../../../../src/hosts/alike/facts.js';
import { portsToReach } from '../../../../src/hosts/alike/ports.js';
import { isLoopback, judgeReach, TEMPORAL } from '../../../../src/hosts/alike/reach.js';
import { cellText } from '../../../../src/cli/host-report.js';
import { splitAddress } from '../../../../src/hosts/matrix.js';
import { host } from './facts.js';

const hosts = [host('head'), host('aa'), host('bbb')];

const cell = (
  from: string,
  to: string,
  outcome: ReachOutcome,
  changes: Partial<ReachCell> = {},
): ReachCell => ({
  ...{ from, to, what: 'GCS', address: `10.0.0.${to.length}`, port: 6379, outcome },
  ...(outcome === 'reached' && { milliseconds: 0.4 }),
  ...changes,
});
const judge = (...cells: ReachCell[]): HostFinding[] => judgeReach(hosts, cells, []);

describe('a matrix of who reaches whom', () => {
  it('in which all is reached says nothing', () => {
    expect(judge(cell('aa', 'head', 'reached'), cell('head', 'aa', 'reached'))).toEqual([]);
  });

  it('tells one pair once, with all its ports', () => {
    const findings = judge(
      cell('aa', 'head', 'timed-out'),
      cell('aa', 'head', 'timed-out', { what: 'workers', port: 10_002 }),
      cell('aa', 'head', 'timed-out', { what: 'workers', port: 19_999 }),
      cell('bbb', 'head', 'reached'),
    );
    expect(findings).toHaveLength(1);
    expect(findings[0]?.found).toEqual({
      'aa → head': 'no answer at 10.0.0.4, 6379 (GCS), 10002 and 19999 (workers)',
    });
    expect(findings[0]?.mend).toContain('TCP 6379, 10002, 19999');
    expect(findings[0]?.mend).not.toContain('Nobody');
  });

  it('begins with the firewall of a host that nobody reaches', () => {
    const [first] = judge(cell('aa', 'head', 'timed-out'), cell('bbb', 'head', 'timed-out'));
    expect(first?.mend).toContain('Nobody reaches head');
  });

  it.each<[ReachOutcome, RegExp]>([
    ['timed-out', /firewall drops/u],
    ['refused', /rejects/u],
    ['unroutable', /no way to/u],
    ['unresolved', /does not know the name/u],
    ['wrong-answer', /Another machine or program/u],
    ['stalled', /MTU/u],
    ['failed', /nc -vz/u],
  ])('knows the way out of %s', (outcome, mend) => {
    expect(judge(cell('aa', 'head', outcome))[0]?.mend).toMatch(mend);
  });

  it('refuses for what a cluster needs, and warns for the rest', () => {
    const client = { what: 'Ray client', port: 10_001, optional: true };
    const severities = judge(cell('aa', 'head', 'refused'), cell('aa', 'head', 'refused', client));
    expect(severities.map(({ severity }) => severity)).toEqual(['refuses', 'warns']);
  });

  it('tells once who does not reach Temporal; a head without engines need not', () => {
    const service = { what: TEMPORAL, address: '10.9.9.9', port: 7233 };
    const [finding, ...others] = judge(
      cell('head', TEMPORAL, 'timed-out', { ...service, optional: true }),
      cell('aa', TEMPORAL, 'timed-out', service),
    );
    expect(others).toEqual([]);
    expect(finding).toMatchObject({ what: 'Temporal', severity: 'refuses' });
    expect(Object.keys(finding?.found ?? {})).toEqual(['head', 'aa']);
    const alone = judge(cell('head', TEMPORAL, 'timed-out', { ...service, optional: true }));
    expect(alone[0]?.severity).toBe('warns');
  });

  it('tells ports that are taken, and addresses that are not those of their host', () => {
    const findings = judgeReach(
      hosts,
      [],
      [
        { host: 'head', what: 'GCS', port: 6379, problem: 'taken' },
        { host: 'head', what: 'workers', port: 10_002, problem: 'taken' },
        { host: 'aa', what: 'node manager', port: 0, problem: 'not-here' },
        { host: 'aa', what: 'workers', port: 10_002, problem: 'not-here' },
      ],
    );
    expect(findings.map(({ what, severity }) => `${what} ${severity}`)).toEqual([
      'port refuses',
      'port warns',
      'address refuses',
    ]);
    expect(findings[2]?.found['aa']).toBe('10.0.0.2 is on no interface of it, which has 10.0.0.1');
  });

  it('only warns of a port that the cluster itself may have', () => {
    const taken = {
      host: 'head',
      what: 'GCS',
      port: 6379,
      problem: 'taken',
      maybeOwn: true,
    } as const;
    expect(judgeReach(hosts, [], [taken])[0]?.severity).toBe('warns');
  });

  it('is shown a cell for each pair', () => {
    expect(
      cellText([cell('aa', 'head', 'reached'), cell('aa', 'head', 'reached', { milliseconds: 2 })]),
    ).toBe('ok, 2.0 ms');
    expect(cellText([])).toBe('-');
    const some = cellText([
      cell('aa', 'head', 'reached'),
      cell('aa', 'head', 'refused', { port: 8265 }),
    ]);
    expect(some).toContain('8265 refused');
    expect(cellText([cell('aa', 'head', 'unroutable')])).toContain('no route');
  });
});

describe('what has to be reached', () => {
  it('is what the cluster file names, any port where Ray chooses, and the ends of a range', () => {
    const ports = portsToReach({
      gcs: 6380,
      dashboard: 8266,
      objectManager: 9000,
      workers: [20_000, 20_999],
    });
    expect(ports.filter(({ on }) => on === 'head').map(({ port }) => port)).toEqual([6380, 8266]);
    expect(ports.filter(({ on }) => on === 'nodes').map(({ port }) => port)).toEqual([
      0, 9000, 20_000, 20_499, 20_999,
    ]);
    const agents = portsToReach({ gcs: 6379, dashboard: 8265, dashboardAgentGrpc: 9003 });
    expect(agents.find(({ port }) => port === 9003)).toMatchObject({ on: 'nodes', optional: true });
    const ray = portsToReach({ gcs: 6379, dashboard: 8265, workers: [30_000, 30_000] });
    expect(ray.filter(({ what }) => what === 'workers')).toHaveLength(1);
  });

  it('has addresses of its own for every host, but the loopback', () => {
    expect(['localhost:7233', '127.0.0.1', '::1', '[::1]:7233'].every(isLoopback)).toBe(true);
    expect(['10.0.0.1', '1.127.0.0', 'temporal', 'fd00::1'].some(isLoopback)).toBe(false);
    expect(splitAddress('temporal:7234')).toEqual({ host: 'temporal', port: 7234 });
    expect(splitAddress('[fd00::1]:7233')).toEqual({ host: 'fd00::1', port: 7233 });
    expect(splitAddress('temporal')).toEqual({ host: 'temporal', port: 7233 });
  });
});
