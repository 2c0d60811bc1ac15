import { describe, expect, it } from 'vitest';

import type { HostFinding, StoreFacts } from '../../../../src/hosts/alike/facts.js';
import { judgeStore } from '../../../../src/hosts/alike/store.js';

const judge = (
  store: string,
  trips: StoreFacts['trips'],
  notAsked: readonly string[] = [],
): HostFinding[] => judgeStore({ store, trips, notAsked });
const found = (a: boolean, b: boolean) => ({ written: true, found: { a, b } });

describe('a store', () => {
  it('is shared when every host reads what every host wrote', () => {
    expect(judge('/data', { a: found(true, true), b: found(true, true) })).toEqual([]);
  });

  it('that is a folder of its own on each host is refused', () => {
    const [finding] = judge('/data', { a: found(true, false), b: found(false, true) });
    expect(finding).toMatchObject({
      severity: 'refuses',
      found: { a: 'does not see what b wrote', b: 'does not see what a wrote' },
    });
    expect(finding?.mend).toContain('mount one shared folder');
  });

  it('that is mounted on some hosts only is refused; on the only host it is made when it is needed', () => {
    const missing = { written: false, missing: true, problem: 'there is no folder /data' };
    const [finding, ...more] = judge('/data', {
      a: { written: true, found: { a: true } },
      b: missing,
    });
    expect(more).toEqual([]);
    expect(finding).toMatchObject({
      severity: 'refuses',
      found: { b: 'there is no folder /data' },
    });
    expect(judge('/data', { a: missing })).toEqual([]);
  });

  it('that a host may not use is refused, with what helps for its kind', () => {
    const trips = { a: { problem: 'the store cannot serve trip-1-a: 403 (AccessDenied)' } };
    expect(judge('s3://bucket/x', trips)[0]?.mend).toContain('credentials');
    expect(judge('file:///data', trips)[0]?.mend).toContain('write to');
  });

  it('of hosts that cannot look yet is looked at later, and it is said', () => {
    const one = { a: { written: true, found: { a: true } } };
    expect(judge('/data', one, ['b'])).toMatchObject([
      { severity: 'warns', hosts: ['b'], mend: expect.stringContaining('one shared folder') },
    ]);
    expect(judge('/data', {}, ['b'])).toEqual([]);
  });
});
