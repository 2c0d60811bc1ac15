import { describe, expect, it } from 'vitest';

import { noNodeWarning } from '../../../src/clusters/reach.js';
import type { SshNode } from '../../../src/contracts/cluster.js';
import { sshProvider } from '../../support/ssh-spec.js';

describe('a machine that runs the workers', () => {
  const warning = async (
    worker: Omit<SshNode, 'name'> = { host: '192.0.2.8' },
    count = 1,
  ): Promise<string | undefined> => {
    const nodes = { ...sshProvider([]), workers: [{ name: 'w', ...worker }], count };
    return noNodeWarning({ name: 'lab', nodes }, ['192.0.2.7']);
  };

  it('is told when it is no node of the cluster, as drivers of Ray need one beside them', async () => {
    expect(await warning()).toMatch(/^This machine is no node of lab, .*run Rankflow on its head/u);
    // A spare is none yet.
    expect(await warning({ host: '192.0.2.7' }, 0)).toBeDefined();
    expect(await warning({ host: '192.0.2.7' })).toBeUndefined();
    expect(await warning({ host: 'gate', address: '192.0.2.7' })).toBeUndefined();
    expect(await warning({ host: '127.0.0.1', ssh: { port: 2222 } })).toBeUndefined();
  });

  it('is told nothing where an address is not known, or the cluster is of another kind', async () => {
    expect(await warning({ host: 'alias.invalid' })).toBeUndefined();
    const nodes = { provider: 'local', workers: 0 } as const;
    expect(await noNodeWarning({ name: 'local', nodes }, [])).toBeUndefined();
  });
});
