import { expect, test } from 'vitest';

import { bytesOf } from '../../../src/client/size.js';

test('a size is read as people write it', () => {
  const sizes = ['4096', '1kB', '1.5 GB', '100GB', '2KiB', '1tib', '3g', '0'];
  expect(sizes.map(bytesOf)).toEqual([4096, 1e3, 1.5e9, 1e11, 2048, 2 ** 40, 3e9, 0]);
});

test('what is no size is told apart', () => {
  for (const text of ['', 'GB', '-1GB', '1PB', '1 GB free', '1,5GB']) {
    expect(bytesOf(text), text).toBeUndefined();
  }
});
