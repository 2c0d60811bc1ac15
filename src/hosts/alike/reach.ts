import type { ReachOutcome } from '../../contracts/hosts.js';
import type { ClosedPort, HostFacts, HostFinding, ReachCell } from './facts.js';

/** What people read of an outcome. */
export const OUTCOMES: Readonly<Record<ReachOutcome, string>> = {
  reached: 'ok',
  refused: 'refused',
  'timed-out': 'no answer',
  unroutable: 'no route',
  unresolved: 'unknown name',
  'wrong-answer': 'wrong answer',
  stalled: 'stalls',
  failed: 'failed',
};

/** The way out for one outcome. `ports` are those that failed. */
const MENDS: Readonly<Record<ReachOutcome, (cell: ReachCell, ports: string) => string>> = {
  reached: () => '',
  'timed-out': ({ from, to, address }, ports) =>
    `A firewall drops it, or ${address} is no address of ${to} in the network of ${from}: let ${from} through to ${address} on TCP ${ports} (security group, ufw, Windows firewall), or give the address of ${to} in the network that both share.`,
  refused: ({ from, to, address }, ports) =>
    `Something rejects it although ${to} listened: a firewall with REJECT, or ${address} is another machine or a router. Let ${from} through on TCP ${ports}, or correct the address of ${to}.`,
  unroutable: ({ from, to, address }) =>
    `${from} has no way to ${address} (ip route get ${address}): take an address of ${to} in a network that both are in, or join them with a VPN.`,
  unresolved: ({ from, to, address }) =>
    `${from} does not know the name ${address}: give the address of ${to}.`,
  'wrong-answer': ({ to, address }) =>
    `Another machine or program answers at ${address}: a second host with that address, a NAT or a proxy. Give ${to} the address that its own interface has.`,
  stalled: ({ from, to }) =>
    `Large packets from ${to} to ${from} get lost: lower the MTU of the interface (ip link set dev DEVICE mtu 1280), as VPNs need it, or let ICMP through.`,
  failed: ({ from, address }, ports) => `Try it on ${from}: nc -vz ${address} ${ports}`,
};

const TEMPORAL_MEND = (hosts: string, address: string): string =>
  `Engines are workers of Temporal: let ${hosts} through to ${address}, and set TEMPORAL_ADDRESS to an address that every host reaches, never to the loopback.`;

/** Addresses of a machine that mean itself. */
export const isLoopback = (address: string): boolean =>
  /^(?:localhost|127\.|::1$|\[::1\])/u.test(address);

/**
 * What the matrix means: one finding for each pair and outcome, or for each host that nobody reaches, with the way
 * out.
 */
export function judgeReach(
  hosts: readonly HostFacts[],
  cells: readonly ReachCell[],
  closed: readonly ClosedPort[],
): HostFinding[] {
  const bad = cells.filter(({ outcome }) => outcome !== 'reached');
  const temporal = bad.filter(({ to }) => to === TEMPORAL);
  return [
    ...closedPorts(hosts, closed),
    ...grouped(bad.filter(({ to }) => to !== TEMPORAL)).map((group) => finding(group, cells)),
    ...(temporal.length === 0 ? [] : [unreachableTemporal(temporal)]),
  ];
}

/** Name of the column of Temporal in the matrix. */
export const TEMPORAL = 'Temporal';

type Group = readonly [ReachCell, ...ReachCell[]];

/** Cells of one pair with one outcome. */
function grouped(cells: readonly ReachCell[]): Group[] {
  const groups = new Map<string, [ReachCell, ...ReachCell[]]>();
  for (const cell of cells) {
    const key = [cell.from, cell.to, cell.outcome, cell.optional ?? false].join('\0');
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [cell]);
    else group.push(cell);
  }
  return [...groups.values()];
}

function finding(group: Group, all: readonly ReachCell[]): HostFinding {
  const [first] = group;
  const { from, to, outcome, optional } = first;
  const others = all.filter((cell) => cell.to === to && cell.from !== to && cell.from !== from);
  const reachedByOthers = others.some((cell) => cell.outcome === 'reached');
  const ports = portList(group);
  const why =
    others.length > 0 && !reachedByOthers
      ? ` Nobody reaches ${to}: begin with its own firewall.`
      : '';
  return {
    what: 'reach',
    severity: optional ? 'warns' : 'refuses',
    hosts: [to, from],
    found: {
      [`${from} → ${to}`]: `${OUTCOMES[outcome]} at ${first.address}, ${described(group)}`,
    },
    mend: MENDS[outcome](first, ports) + why,
  };
}

const portList = (cells: readonly ReachCell[]): string =>
  [...new Set(cells.map(({ port }) => port))].toSorted((a, b) => a - b).join(', ');

/** `6379 (GCS), 10002, 15000 and 19999 (workers)`. */
function described(cells: readonly ReachCell[]): string {
  const byWhat = new Map<string, number[]>();
  for (const { what, port } of cells) byWhat.set(what, [...(byWhat.get(what) ?? []), port]);
  return [...byWhat].map(([what, ports]) => `${ports.join(' and ')} (${what})`).join(', ');
}

function closedPorts(hosts: readonly HostFacts[], closed: readonly ClosedPort[]): HostFinding[] {
  const findings: HostFinding[] = [];
  for (const host of hosts) {
    const of = (problem: ClosedPort['problem']): ClosedPort[] =>
      closed.filter((one) => one.host === host.name && one.problem === problem);
    const elsewhere = of('not-here');
    if (elsewhere.length > 0) findings.push(notHere(host));
    for (const { what, port, maybeOwn } of of('taken')) {
      findings.push({
        what: 'port',
        // Ray passes over a port of its workers' range that is taken.
        severity: what === 'workers' || maybeOwn ? 'warns' : 'refuses',
        hosts: [host.name],
        found: { [host.name]: `${port} (${what}) is taken` },
        mend: `${maybeOwn ? 'Nothing to do when that is this cluster, which is up. ' : ''}End what listens there (ss -ltnp 'sport = :${port}' on ${host.name}), or choose another port.`,
      });
    }
    for (const { what, port } of of('denied')) {
      findings.push({
        what: 'port',
        severity: 'refuses',
        hosts: [host.name],
        found: { [host.name]: `${port} (${what}) may not be opened` },
        mend: 'Choose a port above 1023.',
      });
    }
  }
  return findings;
}

function notHere({ name, address, fingerprint }: HostFacts): HostFinding {
  const own = fingerprint?.addresses ?? [];
  const has = own.length > 0 ? `, which has ${own.join(', ')}` : '';
  return {
    what: 'address',
    severity: 'refuses',
    hosts: [name],
    found: { [name]: `${address} is on no interface of it${has}` },
    mend: `Give the address that ${name} itself has in the network of the cluster. A cloud's public address is on its router, not on the machine: use the private one, or a VPN between the sites.`,
  };
}

function unreachableTemporal(cells: readonly ReachCell[]): HostFinding {
  const names = cells.map(({ from }) => from).join(', ');
  const { address = '', port = 0 } = cells[0] ?? {};
  return {
    what: 'Temporal',
    severity: cells.every(({ optional }) => optional) ? 'warns' : 'refuses',
    hosts: cells.map(({ from }) => from),
    found: Object.fromEntries(
      cells.map((cell) => [cell.from, `${OUTCOMES[cell.outcome]} at ${address}:${port}`]),
    ),
    mend: TEMPORAL_MEND(names, `${address}:${port}`),
  };
}
