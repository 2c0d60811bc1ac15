import { describe, expect, it } from 'vitest';

import { nodesToAdd } from '../../../src/clusters/members.js';
import type { SshProvider } from '../../../src/contracts/cluster.js';
import { sshProvider } from '../../support/ssh-spec.js';

describe('the nodes to add', () => {
  const asked = sshProvider(['a', 'b', 'old']);
  const mended = (provider: SshProvider): SshProvider => ({
    ...provider,
    workers: provider.workers.map((node) => ({ ...node, ssh: { port: 2222 } })),
  });
  const file = mended(sshProvider(['a', 'b', 'new']));
  const present = [{ name: 'head' }, { name: 'a', host: 'a' }, { name: 'lent', host: '10.0.0.9' }];

  it('are as the file says now, not as it said when the cluster was brought up', () => {
    expect(nodesToAdd(['b'], present, file, asked)).toEqual([
      { name: 'b', host: 'b', ssh: { port: 2222 } },
    ]);
    expect(nodesToAdd(['b'], present, undefined, asked)).toEqual([{ name: 'b', host: 'b' }]);
  });

  it('are without a name those of the file that the cluster lacks', () => {
    expect(nodesToAdd([], present, file, asked).map(({ name }) => name)).toEqual(['b', 'new']);
    expect(nodesToAdd([], present, undefined, asked).map(({ name }) => name)).toEqual(['b', 'old']);
    expect(nodesToAdd([], present, undefined, undefined)).toEqual([]);
  });

  it('may be hosts that nobody has named before, and nodes that were added without a file', () => {
    expect(nodesToAdd(['10.0.1.[1-2]', 'lent'], present, file, asked)).toEqual([
      { name: '10.0.1.1', host: '10.0.1.1' },
      { name: '10.0.1.2', host: '10.0.1.2' },
      { name: 'lent', host: '10.0.0.9' },
    ]);
  });

  it.each([
    [['h!'], /^h!: expected a host name/u],
    [['-oProxyCommand=x'], /expected a host name/u],
    [['c', 'c'], /^c: there are two nodes called c$/mu],
    [['c-[1-5000]'], /5000 hosts/u],
    [['c', '10.0.0.1'], /^10\.0\.0\.1: 10\.0\.0\.1 is the host of head, too$/mu],
  ])('are refused before anything is asked of the cluster: %s', (hosts, why) => {
    expect(() => nodesToAdd(hosts, present, undefined, asked)).toThrow(
      expect.objectContaining({ type: 'Usage', message: expect.stringMatching(why) as string }),
    );
  });
});
