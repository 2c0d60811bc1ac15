import { describe, expect, it } from 'vitest';

import type { HostFinding } from '../../../../src/hosts/alike/facts.js';
import { refusalText, unfitHosts } from '../../../../src/hosts/alike/refusal.js';

const finding = (
  what: string,
  hosts: readonly string[],
  severity: HostFinding['severity'] = 'refuses',
): HostFinding => ({
  ...{ what, severity, hosts, mend: `mend ${what}` },
  found: Object.fromEntries(hosts.map((name) => [name, 'bad'])),
});
const unfit = (...findings: HostFinding[]): Record<string, string[]> =>
  Object.fromEntries(
    [...unfitHosts(findings, 'head')].map(([name, found]) => [name, found.map(({ what }) => what)]),
  );

describe('hosts that are not fit', () => {
  it('are those that differ, with all that is wrong with them', () => {
    expect(
      unfit(finding('Ray', ['a', 'b']), finding('Python', ['b']), finding('disk', ['c'], 'warns')),
    ).toEqual({
      a: ['Ray'],
      b: ['Ray', 'Python'],
    });
  });

  it('are one of each pair, never the head when there is another: a spare takes the place of a worker', () => {
    expect(unfit(finding('reach', ['head', 'a']), finding('reach', ['a', 'head']))).toEqual({
      a: ['reach', 'reach'],
    });
    expect(unfit(finding('reach', ['a', 'b']), finding('reach', ['b', 'a']))).toEqual({
      a: ['reach', 'reach'],
    });
    expect(unfit(finding('reach', ['head']))).toEqual({ head: ['reach'] });
  });

  it('are told in a line for each finding, with the way out', () => {
    const report = {
      hosts: [],
      reach: [],
      refused: true,
      findings: [finding('Ray', ['a']), finding('disk', ['a'], 'warns')],
    };
    expect(refusalText(report)).toBe('Ray: a: bad. mend Ray');
  });
});
