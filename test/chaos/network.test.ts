import { execFileSync, spawnSync } from 'node:child_process';

import { describe, expect, it, onTestFinished } from 'vitest';

import { Network } from '../../chaos/network/network.js';
import { whyNoHosts } from '../support/ssh-hosts.js';

const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' });

describe.skipIf(whyNoHosts() !== undefined)('hosts of their own on this machine', () => {
  it('go with the next network when the process that made them was killed', () => {
    const { pid: gone } = spawnSync('true');
    const [left, link] = [`rc${gone}-head`, `rc${gone}v0`];
    const other = `rc${process.ppid}-other`;
    onTestFinished(() => {
      for (const name of [left, other]) spawnSync('ip', ['netns', 'delete', name]);
      spawnSync('ip', ['link', 'delete', link]);
    });
    for (const name of [left, other]) ip('netns', 'add', name);
    ip('link', 'add', link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', left);

    Network.create(['a']).remove();

    expect(ip('netns', 'list')).not.toContain(left);
    expect(ip('link', 'show')).not.toContain(link);
    // Somebody else's network is in use.
    expect(ip('netns', 'list')).toContain(other);
    expect(ip('netns', 'list')).not.toContain(`rc${process.pid}-`);
  });
});
