import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { Claims } from '../../../src/workflows/claims.js';

describe('claims', () => {
  it('were started for the first user alone', () => {
    const claims = new Claims();
    claims.claim({ user: 'a' });
    claims.claim({ user: 'b' });
    expect(claims.startedFor('a')).toBe(true);
    expect(claims.startedFor('b')).toBe(false);
    expect(claims.startedFor(undefined)).toBe(false);
  });

  it('are new for a person each time, for a user until it gives back', () => {
    const claims = new Claims();
    expect([claims.claim({}), claims.claim({})]).toEqual([true, true]);
    expect([claims.claim({ user: 'a' }), claims.claim({ user: 'a' })]).toEqual([true, false]);
    expect(new Claims(claims.carried()).claim({ user: 'a' })).toBe(false);
    claims.release('a');
    expect(claims.claim({ user: 'a' })).toBe(true);
  });

  it('end with the last user, whoever that is', () => {
    const claims = new Claims();
    claims.claim({ user: 'a' });
    claims.claim({ user: 'b' });
    expect(claims.release('a')).toBe(false);
    expect(claims.release('b')).toBe(true);
  });

  it('never end once a person, or a user with keep, asked for it', () => {
    for (const claim of [{}, { user: 'b', keep: true }]) {
      const claims = new Claims();
      claims.claim({ user: 'a' });
      claims.claim(claim);
      claims.release('b');
      expect(claims.release('a')).toBe(false);
    }
  });

  it('were not started for a user who found it permanent', () => {
    const claims = new Claims();
    claims.claim({});
    claims.claim({ user: 'a' });
    expect(claims.startedFor('a')).toBe(false);
  });

  it('survive continue-as-new, and repeating them changes nothing', () => {
    const user = fc.constantFrom('a', 'b', 'c');
    const step = fc.record({ user, keep: fc.boolean(), release: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        let claims = new Claims();
        for (const { user, keep, release } of steps) {
          const act = (): unknown =>
            release ? claims.release(user) : claims.claim({ user, keep });
          act();
          const once = claims.carried();
          act();
          expect(claims.carried()).toEqual(once);
          claims = new Claims(once);
          expect(claims.carried()).toEqual(once);
        }
      }),
    );
  });
});
