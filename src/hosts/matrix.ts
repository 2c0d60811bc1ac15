import { randomBytes } from 'node:crypto';

import { isLoopback, TEMPORAL } from './alike/reach.js';
import type { ClosedPort, HostFinding, PortToReach, ReachCell } from './alike/facts.js';
import { connect, listen, type Listener, type Target } from './probe.js';
import { problemOf, type Able } from './respondent.js';

export interface Matrix {
  readonly cells: readonly ReachCell[];
  readonly closed: readonly ClosedPort[];
  /** Hosts that went away meanwhile. */
  readonly problems: readonly HostFinding[];
}

/** Whether nodes run already, so that their ports are taken: all, or by host. Of a host that is missing nobody knows. */
export type Running = boolean | Readonly<Record<string, boolean>>;

export interface ReachOptions {
  readonly ports: readonly PortToReach[];
  readonly running?: Running;
  readonly temporal?: string | undefined;
}

/** A host across an ocean answers in a third of a second; a firewall that drops, never. */
const CONNECT_SECONDS = 4;
/** Listeners wait for the slowest of the hosts that connect; they are closed as soon as all have tried. */
const LISTEN_SECONDS = 300;

/** A cell that is still to be tried. */
interface Try {
  readonly cell: Omit<ReachCell, 'outcome' | 'from'>;
  readonly target: Target;
}

/** A host that listens: its secret, and what its ports are for. */
interface Listening {
  readonly nonce: string;
  readonly wanted: readonly PortToReach[];
  readonly listener: Listener;
}

/** Lets every host listen and every other one connect. On one host there is nobody to be reached, but Temporal. */
export async function exploreReach(able: readonly Able[], options: ReachOptions): Promise<Matrix> {
  const nodes = able.filter(({ facts }) => facts.role !== 'control');
  const listeners = new Map<string, Listening>();
  const problems: HostFinding[] = [];
  const noting = async <T>({ facts: { name } }: Able, work: Promise<T>): Promise<T | undefined> =>
    work.catch((error: unknown) => {
      const { message, mend } = problemOf(error, name);
      const finding = { what: 'host', severity: 'refuses', hosts: [name], mend } as const;
      problems.push({ ...finding, found: { [name]: message } });
      return undefined;
    });
  try {
    await Promise.all(
      nodes.map(async (node) => {
        const { name, role, address } = node.facts;
        const wanted = options.ports.filter(({ on }) => on === 'nodes' || role === 'head');
        const nonce = randomBytes(16).toString('hex');
        const ports = wanted.map(({ port }) => port);
        const request = { address, ports, nonce, seconds: LISTEN_SECONDS };
        const listener = await noting(node, listen(node.python, request));
        if (listener !== undefined) listeners.set(name, { nonce, wanted, listener });
      }),
    );
    const closed = [...listeners].flatMap(([host, { listener, wanted }]) =>
      listener.ports.flatMap(({ port, problem }, index): ClosedPort[] => {
        const { running = false } = options;
        const own = typeof running === 'object' ? running[host] : running;
        if (problem === undefined || (problem === 'taken' && own)) return [];
        const maybe = own === undefined ? { maybeOwn: true } : {};
        return [{ host, what: wanted[index]?.what ?? '', port, problem, ...maybe }];
      }),
    );
    const cells = await Promise.all(
      able.map(async (from) => {
        const tries = [
          ...nodes.flatMap((to) => (to === from ? [] : triesTo(from, to, listeners))),
          ...temporalTry(from, nodes.length > 1, options.temporal),
        ];
        if (tries.length === 0) return [];
        const targets = tries.map(({ target }) => target);
        const reached = await noting(from, connect(from.python, targets, CONNECT_SECONDS));
        return tries.flatMap(({ cell }, index): ReachCell[] => {
          const found = reached?.[index];
          if (found === undefined) return [];
          const { outcome, milliseconds } = found;
          const took = milliseconds === undefined ? {} : { milliseconds };
          return [{ from: from.facts.name, ...cell, outcome, ...took }];
        });
      }),
    );
    return { cells: cells.flat(), closed, problems };
  } finally {
    await Promise.all([...listeners.values()].map(async ({ listener }) => listener.close()));
  }
}

/** A machine that runs no node needs the head's services only; of some ports only the head is a client. */
const isFor = ({ facts: { role } }: Able, { on, from = role }: PortToReach): boolean =>
  (role !== 'control' || on === 'head') && role === from;

function triesTo(from: Able, to: Able, listeners: ReadonlyMap<string, Listening>): Try[] {
  const { address, name } = to.facts;
  const { nonce, listener, wanted } = listeners.get(name) ?? {};
  return (listener?.ports ?? []).flatMap(({ port: asked, bound, problem }, index): Try[] => {
    const what = wanted?.[index];
    // A port that nobody listens on says nothing about the way there, except one that another program has.
    if (what === undefined || (bound === undefined && problem !== 'taken')) return [];
    if (!isFor(from, what)) return [];
    const port = bound ?? asked;
    // Nodes need the head's dashboard only for jobs.
    const optional = what.optional ?? (what.what === 'dashboard' && from.facts.role !== 'control');
    const target = { host: address, port, ...(bound !== undefined && { nonce }) };
    return [
      { cell: { to: name, what: what.what, address, port, ...(optional && { optional }) }, target },
    ];
  });
}

function temporalTry(from: Able, several: boolean, temporal: string | undefined): Try[] {
  if (temporal === undefined || from.facts.role === 'control') return [];
  const { host, port } = splitAddress(temporal);
  const optional = from.facts.engines ? {} : { optional: true };
  const cell = { to: TEMPORAL, what: TEMPORAL, address: host, port, ...optional };
  // On every host the loopback is another machine: whatever answers there is not the one that is meant.
  const nonce = several && isLoopback(host) ? { nonce: 'of no listener' } : {};
  return [{ cell, target: { host, port, ...nonce } }];
}

/** `host:port`, with IPv6 addresses in brackets. */
export function splitAddress(address: string): { host: string; port: number } {
  const { host = address, port } = /^\[?(?<host>.*?)\]?:(?<port>\d+)$/u.exec(address)?.groups ?? {};
  return { host, port: Number(port ?? 7233) };
}
