import { describe, expect, it } from 'vitest';

import { judgeStore } from '../../../../src/hosts/alike/store.js';

const found = (a: boolean, b: boolean) => ({ written: true, found: { a, b } });

describe('a store', () => {
  it('is shared when every host reads what every host wrote', () => {
    expect(
      judgeStore({ store: '/data', trips: { a: found(true, true), b: found(true, true) } }),
    ).toEqual([]);
  });

  it('that is a folder of its own on each host is refused', () => {
    const [finding] = judgeStore({
      store: '/data',
      trips: { a: found(true, false), b: found(false, true) },
    });
    expect(finding).toMatchObject({
      severity: 'refuses',
      found: { a: 'does not see what b wrote', b: 'does not see what a wrote' },
    });
    expect(finding?.mend).toContain('mount one shared folder');
  });

  it('that is mounted on some hosts only is refused; on the only host it is made when it is needed', () => {
    const missing = { written: false, missing: true, problem: 'there is no folder /data' };
    const [finding, ...more] = judgeStore({
      store: '/data',
      trips: { a: { written: true, found: { a: true } }, b: missing },
    });
    expect(more).toEqual([]);
    expect(finding).toMatchObject({
      severity: 'refuses',
      found: { b: 'there is no folder /data' },
    });
    expect(judgeStore({ store: '/data', trips: { a: missing } })).toEqual([]);
  });

  it('that a host may not use is refused, with what helps for its kind', () => {
    const trips = { a: { problem: 'the store cannot serve trip-1-a: 403 (AccessDenied)' } };
    expect(judgeStore({ store: 's3://bucket/x', trips })[0]?.mend).toContain('credentials');
    expect(judgeStore({ store: 'file:///data', trips })[0]?.mend).toContain('write to');
  });
});
