import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';

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

const ownAddresses = (): string[] =>
  Object.values(networkInterfaces()).flatMap((found = []) => found.map(({ address }) => address));

/**
 * The Python worker of this machine places engines as a driver of Ray, which connects only through a node of its own
 * machine. Nothing is said where the address of a host is not known, as with an alias of ssh.
 *
 * @param own addresses of this machine
 */
export async function noNodeWarning(
  { name, nodes }: ClusterSpec,
  own: readonly string[] = ownAddresses(),
): Promise<string | undefined> {
  if (nodes.provider !== 'ssh') return undefined;
  const { head, workers, count } = nodes;
  const hosts = [head, ...workers.slice(0, count)].map(({ host, address }) => address ?? host);
  const found = await Promise.all(hosts.map(addressesOf));
  const isHere = (address: string): boolean => LOOPBACK.test(address) || own.includes(address);
  if (found.some((addresses) => addresses?.some(isHere) ?? true)) return undefined;
  return `This machine is no node of ${name}, and Rankflow's Python worker here cannot place engines on it: run Rankflow on its head or on another node.`;
}

async function addressesOf(host: string): Promise<string[] | undefined> {
  if (isIP(host) !== 0) return [host];
  const found = await lookup(host, { all: true }).catch(() => undefined);
  return found?.map(({ address }) => address);
}
