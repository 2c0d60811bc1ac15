import { describe, expect, it } from 'vitest';

import { serverVersion } from '../../src/setup/temporal.js';
import { atLeast, parseVersion } from '../../src/setup/versions.js';

describe('versions that programs print', () => {
  it.each([
    ['temporal version 1.5.1 (Server 1.29.1, UI 2.42.1)', [1, 5, 1]],
    ['uv 0.13.9 (x86_64-unknown-linux-gnu)', [0, 13, 9]],
    ['go version go1.26 linux/amd64', [1, 26, 0]],
    ['v20.20.2', [20, 20, 2]],
  ])('are found in %j', (text, version) => {
    expect(parseVersion(text)).toEqual(version);
  });

  it('are undefined where there is none', () => {
    expect(parseVersion('command not found')).toBeUndefined();
    expect(parseVersion('')).toBeUndefined();
  });

  it('of a Temporal CLI are those of the server inside: a CLI from source has no version', () => {
    expect(serverVersion('temporal version 0.0.0-DEV (Server 1.29.1, UI 2.42.1)')).toEqual([
      1, 29, 1,
    ]);
    expect(serverVersion('tctl version 1.18.0')).toBeUndefined();
  });

  it('are compared by number, part by part', () => {
    expect(atLeast([1, 3, 0], [1, 3, 0])).toBe(true);
    expect(atLeast([1, 10, 0], [1, 9, 9])).toBe(true);
    expect(atLeast([2, 0, 0], [1, 9, 9])).toBe(true);
    expect(atLeast([1, 2, 99], [1, 3, 0])).toBe(false);
    expect(atLeast([0, 99, 0], [1, 3, 0])).toBe(false);
  });
});
