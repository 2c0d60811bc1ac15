import { expect, it } from 'vitest';

import { retryIdOf } from '../../../src/client/retry.js';

it('retries of a run are numbered, also those of retries', () => {
  expect(retryIdOf('nightly')).toBe('nightly-retry-1');
  expect(retryIdOf('nightly-retry-1')).toBe('nightly-retry-2');
  expect(retryIdOf('a-retry-9-b')).toBe('a-retry-9-b-retry-1');
});
