import pLimit, { type LimitFunction } from 'p-limit';

import type { SshNode, SshProvider } from '../../contracts/cluster.js';
import type { Host } from '../../hosts/host.js';
import { sshHost, type SshTarget } from '../../hosts/ssh.js';

/** One bound for each cluster, whatever activities work on it at the same time. */
const limits = new Map<string, LimitFunction>();

function limitOf(cluster: string, parallelism: number): LimitFunction {
  const known = limits.get(cluster);
  if (known !== undefined) {
    known.concurrency = parallelism;
    return known;
  }
  const limit = pLimit(parallelism);
  limits.set(cluster, limit);
  return limit;
}

/** How to log in on the host of a node. */
export function targetOf(nodes: SshProvider, node: SshNode): SshTarget {
  const login = { ...nodes.ssh, ...node.ssh };
  return {
    name: node.name,
    host: node.host,
    user: login.user,
    port: login.port,
    identityFile: login.identityFile,
    knownHostsFile: login.knownHosts,
    jump: login.jump,
    configFile: login.config,
  };
}

/** The host of a node: no more commands run at once on the cluster's hosts than its file says. */
export function hostOf(cluster: string, nodes: SshProvider, node: SshNode): Host {
  const host = sshHost(targetOf(nodes, node));
  const limit = limitOf(cluster, nodes.parallelism);
  return {
    name: host.name,
    run: async (command, options) => limit(async () => host.run(command, options)),
    put: async (path, content, mode) => limit(async () => host.put(path, content, mode)),
  };
}
