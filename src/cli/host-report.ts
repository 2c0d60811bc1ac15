import Table from 'cli-table3';

import { leastSkew } from '../hosts/alike/condition.js';
import type {
  HostFacts,
  HostFinding,
  HostReport,
  ReachCell,
  StoreFacts,
} from '../hosts/alike/facts.js';
import { OUTCOMES } from '../hosts/alike/reach.js';
import { vllmOf } from '../hosts/alike/versions.js';
import { paint } from '../setup/paint.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const STYLE = { style: { head: [], border: [] } };

/** What hosts are and have room for, whom they reach and what is not well, as tables. */
export function hostReportText(report: HostReport): string {
  const { hosts, reach, store, findings } = report;
  return [
    hostTable(hosts),
    roomTable(hosts),
    ...(reach.length > 0 || store !== undefined ? [reachTable(report)] : []),
    ...(findings.length > 0 ? [findingTable(findings)] : []),
    summary(report),
  ].join('\n');
}

function hostTable(hosts: readonly HostFacts[]): string {
  const table = new Table({
    head: [
      'host',
      'address',
      'system',
      'Python',
      'Ray',
      'vLLM',
      'torch',
      'GPUs',
      'CPUs',
      'memory',
      'clock',
    ],
    ...STYLE,
  });
  for (const host of hosts) table.push(hostRow(host));
  return table.toString();
}

function hostRow({ name, role, address, fingerprint, clock, noEnvironment }: HostFacts): string[] {
  const title = `${name} (${role})`;
  if (fingerprint === undefined) return [title, address, ...Array<string>(9).fill('-')];
  const { system, architecture, python, versions, gpus, cpus, memory } = fingerprint;
  const cards = gpus?.cards ?? [];
  const skew = clock === undefined ? 0 : leastSkew(clock);
  return [
    title,
    address,
    `${system}, ${architecture}`,
    noEnvironment?.later ? `${python} (environment to be made)` : python,
    versions['ray'] ?? '-',
    vllmOf(fingerprint).replace('missing', '-'),
    versions['torch'] ?? '-',
    cards.length === 0 ? '-' : `${cards.length} × ${cards[0]?.name ?? ''}`,
    String(cpus),
    memory === null ? '-' : `${(memory / GIB).toFixed(0)} GiB`,
    skew === 0 ? 'ok' : `${skew > 0 ? '+' : ''}${skew.toFixed(1)} s`,
  ];
}

function roomTable(hosts: readonly HostFacts[]): string {
  const table = new Table({
    head: ['host', 'disk free', '/dev/shm free', 'open files', 'processes', 'locked memory'],
    ...STYLE,
  });
  for (const { name, fingerprint } of hosts) {
    if (fingerprint === undefined) continue;
    const { folders, shm, limits } = fingerprint;
    const disks = Object.values(folders).flatMap((room) => (room === null ? [] : [room]));
    table.push([
      name,
      [...new Set(disks.map((room) => `${roomText(room)} at ${room.path}`))].join('\n') || '-',
      shm === null ? '-' : roomText(shm),
      String(limits.nofile ?? 'no limit'),
      String(limits.nproc ?? 'no limit'),
      limits.memlock === null ? 'no limit' : `${(limits.memlock / MIB).toFixed(0)} MiB`,
    ]);
  }
  return table.toString();
}

const roomText = ({ free, total }: { readonly free: number; readonly total: number }): string =>
  `${(free / GIB).toFixed(1)} of ${(total / GIB).toFixed(1)} GiB`;

/** Rows reach columns. */
function reachTable({ hosts, reach, store }: HostReport): string {
  const rows = hosts.map(({ name }) => name);
  const columns = [...new Set(reach.map(({ to }) => to))];
  const table = new Table({
    head: ['from \\ to', ...columns, ...(store === undefined ? [] : ['store'])],
    ...STYLE,
  });
  for (const from of rows) {
    const cells = columns.map((to) =>
      from === to ? '·' : cellText(reach.filter((cell) => cell.from === from && cell.to === to)),
    );
    table.push([from, ...cells, ...(store === undefined ? [] : [storeCell(store, from)])]);
  }
  return table.toString();
}

function storeCell({ trips }: StoreFacts, host: string): string {
  const trip = trips[host];
  // The folder of the only host is made when it is needed.
  if (trip === undefined || (trip.missing && Object.keys(trips).length === 1)) return '-';
  const shared = trip.written && Object.values(trip.found ?? {}).every(Boolean);
  return shared ? 'ok' : paint.red('no');
}

/** `ok, 0.2 ms`, or which ports fail: `6379 no answer`. */
export function cellText(cells: readonly ReachCell[]): string {
  if (cells.length === 0) return '-';
  const bad = cells.filter(({ outcome }) => outcome !== 'reached');
  if (bad.length === 0) {
    const slowest = Math.max(...cells.map(({ milliseconds }) => milliseconds ?? 0));
    return `ok, ${slowest.toFixed(1)} ms`;
  }
  const outcomes = [...new Set(bad.map(({ outcome }) => outcome))];
  return outcomes
    .map((outcome) => {
      const ports = bad.filter((cell) => cell.outcome === outcome).map(({ port }) => port);
      const which = bad.length === cells.length ? '' : `${ports.join(', ')} `;
      return paint.red(`${which}${OUTCOMES[outcome]}`);
    })
    .join(', ');
}

function findingTable(findings: readonly HostFinding[]): string {
  const table = new Table({
    head: ['what', 'found', '', 'what to do'],
    colWidths: [14, 48, 10, 60],
    wordWrap: true,
    ...STYLE,
  });
  for (const { what, found, severity, mend } of findings) {
    const values = Object.entries(found).map(([where, value]) => `${where}: ${value}`);
    const mark = severity === 'refuses' ? paint.red('refused') : paint.yellow('warning');
    table.push([what, values.join('\n'), mark, mend]);
  }
  return table.toString();
}

function summary({ findings }: HostReport): string {
  const refusals = findings.filter(({ severity }) => severity === 'refuses').length;
  const warnings = findings.length - refusals;
  if (findings.length === 0) return paint.green('The hosts are alike and reach each other.');
  return `${refusals} to mend before a cluster comes up, ${warnings} to look at.`;
}
