import { configuredServer } from '../temporal/settings.js';
import { stackAddress } from '../workers/stack/index.js';
import type { ClusterSpec } from '../contracts/cluster.js';

const LOOPBACK = /^(?:localhost|127\.|\[?::1\]?)/u;

/** Address of the Temporal server, as the engines of a cluster get it; undefined when none is known yet. */
export function temporalFor({ nodes }: ClusterSpec): string | undefined {
  const { variables } = nodes.provider === 'ssh' ? nodes.environment : {};
  return variables?.['TEMPORAL_ADDRESS'] ?? configuredServer().address ?? stackAddress();
}

/** Engines on other hosts cannot reach a Temporal server on the loopback of this one. */
export function farServerWarning({ nodes }: ClusterSpec): string | undefined {
  if (nodes.provider !== 'ssh') return undefined;
  const server = configuredServer().address ?? stackAddress() ?? '';
  const hosts = [nodes.head, ...nodes.workers].map(({ host }) => host);
  if (!LOOPBACK.test(server) || hosts.every((host) => LOOPBACK.test(host))) return undefined;
  return `Temporal is at ${server}, which engines on other hosts do not reach: set TEMPORAL_ADDRESS to one that they do.`;
}
