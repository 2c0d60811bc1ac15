import { describe, expect, it } from 'vitest';

import type { Fingerprint } from '../../../../src/contracts/hosts.js';
import { examineConditions } from '../../../../src/hosts/alike/condition.js';
import type { HostFacts } from '../../../../src/hosts/alike/facts.js';
import { host } from './facts.js';

const GIB = 2 ** 30;
const told = (hosts: readonly HostFacts[]): string[] =>
  examineConditions(hosts).map(({ what, severity }) => `${what} ${severity}`);
const room = (free: number, total: number, path = '/tmp') => ({
  path,
  free: free * GIB,
  total: total * GIB,
});

describe('a host for itself', () => {
  it('is well when it has what a node needs', () => {
    expect(told([host('head'), host('a')])).toEqual([]);
  });

  it.each<[string, Partial<Fingerprint>, string[]]>([
    ['little disk', { folders: { temporary: room(9, 100) } }, ['disk warns']],
    ['a disk that is nearly full', { folders: { temporary: room(30, 1000) } }, ['disk warns']],
    ['a small /dev/shm', { shm: room(0.06, 0.06, '/dev/shm') }, ['/dev/shm warns']],
    ['a small /dev/shm for two GPUs', { shm: room(0.9, 1, '/dev/shm') }, ['/dev/shm warns']],
    ['the same for no GPU', { shm: room(0.9, 1, '/dev/shm'), gpus: null }, []],
    ['few open files', { limits: { nofile: 1024, nproc: 1, memlock: 1 } }, ['open files warns']],
    ['no limit of open files', { limits: { nofile: null, nproc: null, memlock: null } }, []],
    ["WSL's own network", { wsl: 'nat' }, ['WSL warns']],
    ['a mirrored network', { wsl: 'mirrored' }, []],
    ['no /dev/shm, as macOS', { shm: null, system: 'macOS 15' }, []],
  ])('with %s', (_, changes, expected) => {
    expect(told([host('head'), host('a', changes)])).toEqual(expected);
  });

  it.each([
    [{ least: -1.9, most: 0.1 }, []],
    // 3 s behind, seen over a slow line: as much as is certain counts.
    [{ least: -4, most: -1 }, []],
    [{ least: -5, most: -2.5 }, ['clock warns']],
    [{ least: 2.5, most: 4 }, ['clock warns']],
    [{ least: 31, most: 33 }, ['clock refuses']],
    [{ least: -3605, most: -3600 }, ['clock refuses']],
  ])('with a clock of %o', (clock, expected) => {
    expect(told([host('head'), { ...host('a'), clock }])).toEqual(expected);
  });

  it('whose environment is still to be made has to have room for it', () => {
    const home = '~/.cache/rankflow/environments';
    const of = (free: number): HostFacts => ({
      ...host('a', { folders: { environments: room(free, 100, home) } }),
      noEnvironment: { reason: 'no Python', later: true, room: 8 * GIB },
    });
    expect(told([host('head'), of(8)])).toEqual([]);
    const [finding] = examineConditions([host('head'), of(7.5)]);
    expect(finding).toMatchObject({
      ...{ what: 'room for the environment', severity: 'warns', hosts: ['a'] },
      found: { a: `7.5 GiB free at ${home}, 8.0 GiB needed` },
      mend: expect.stringContaining('a link to a larger disk'),
    });
    // It has been made.
    const { noEnvironment: _made, ...made } = of(2);
    expect(told([host('head'), made])).toEqual([]);
  });

  it('is told by name, with what is certain about its clock', () => {
    const [finding] = examineConditions([
      host('head'),
      { ...host('a'), clock: { least: -9, most: -7 } },
    ]);
    expect(finding?.found).toEqual({ a: 'at least 7.0 s behind' });
  });

  it('that runs the workers has to be a node itself, for the sake of drivers', () => {
    const control = (processes: string | null): HostFacts => ({
      ...host('here', { processes }),
      role: 'control',
      engines: false,
    });
    const nodes = [host('head'), host('a', { processes: 'boot-2 pid:[1]' })];
    expect(told([...nodes, control('boot-2 pid:[1]')])).toEqual([]);
    expect(told([...nodes, control(null)])).toEqual([]);
    expect(told([...nodes, control('boot-3 pid:[1]')])).toEqual(['Ray driver refuses']);
    // In a container on the same machine it does not see the node either.
    expect(told([...nodes, control('boot-2 pid:[2]')])).toEqual(['Ray driver refuses']);
  });

  it('that does not answer refuses, with the way out that fits', () => {
    const problem = {
      message: 'a: 10.0.0.9 does not answer on port 22',
      mend: 'Check the firewall.',
    };
    const { fingerprint: _, clock: __, ...silent } = host('a');
    const [finding] = examineConditions([host('head'), { ...silent, problem }]);
    expect(finding).toMatchObject({
      severity: 'refuses',
      found: { a: problem.message },
      mend: problem.mend,
    });
  });
});
