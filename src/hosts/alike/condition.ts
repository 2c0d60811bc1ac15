import type { Fingerprint } from '../../contracts/hosts.js';
import type { HostFacts, HostFinding } from './facts.js';
import { isKnown } from './versions.js';

const GIB = 2 ** 30;
/** Deadlines of attempts and notices of preemption are told as times of day; more than this eats into them. */
const SKEW_WARNS_S = 2;
/** From here on leases and deadlines mean nothing; buckets refuse signatures soon after. */
const SKEW_REFUSES_S = 30;
/** Ray's session with its logs, and what it spills. */
const DISK_LEAST = 10 * GIB;
/** Ray stops making objects when the disk is fuller than 95 %. */
const DISK_FULLEST = 0.95;
/** Ray's object store lies there; on less it goes to the disk. Ranks of one engine on several GPUs talk through it. */
const SHM_LEAST = GIB / 4;
const SHM_LEAST_GPUS = GIB;
/** Each worker and each connection takes some; Ray's own guide asks for as many. */
const NOFILE_LEAST = 65_536;

/** Looks at each host for itself: can it be asked, its clock, its disk, its limits. */
export function examineConditions(hosts: readonly HostFacts[]): HostFinding[] {
  const nodes = hosts.filter(({ role }) => role !== 'control');
  return [
    ...silent(hosts),
    ...withoutEnvironment(hosts),
    ...withoutRoom(nodes),
    ...drivers(hosts),
    ...clocks(nodes),
    ...low(
      nodes,
      'disk',
      lowDisk,
      (host) => `Free some space on ${host}, or name another folder for its files.`,
    ),
    ...low(
      nodes,
      '/dev/shm',
      lowShm,
      (host) =>
        `Make it larger on ${host}: docker run --shm-size=8g, or mount -o remount,size=8g /dev/shm.`,
    ),
    ...low(
      nodes,
      'open files',
      ({ limits: { nofile } }) =>
        nofile !== null && nofile < NOFILE_LEAST ? String(nofile) : undefined,
      (host) =>
        `Raise nofile to ${NOFILE_LEAST} for its user on ${host}: /etc/security/limits.d, LimitNOFILE= of its unit, or docker run --ulimit nofile=${NOFILE_LEAST}.`,
    ),
    ...low(
      nodes,
      'WSL',
      ({ wsl }) => (wsl === 'nat' ? 'networking mode nat' : undefined),
      (host) =>
        `Other machines cannot reach ${host}: set networkingMode=mirrored below [wsl2] in .wslconfig and run wsl --shutdown.`,
    ),
  ];
}

/** A driver of Ray finds the node of its own machine among the processes there; without one it does not connect. */
function drivers(hosts: readonly HostFacts[]): HostFinding[] {
  const known = hosts.filter(isKnown);
  const nodes = known.filter(({ role }) => role !== 'control');
  const seen = new Set(nodes.map(({ fingerprint }) => fingerprint.processes));
  return known
    .filter(({ role, fingerprint }) => role === 'control' && fingerprint.processes !== null)
    .filter(({ fingerprint }) => nodes.length > 0 && !seen.has(fingerprint.processes))
    .map(({ name }) => ({
      what: 'Ray driver',
      severity: 'refuses',
      hosts: [name],
      found: { [name]: 'is no node of the cluster' },
      mend: 'Run Rankflow (`rankflow up`) on the head or on another node: its Python worker places engines as a driver of Ray, which connects only through a node of its own machine.',
    }));
}

function silent(hosts: readonly HostFacts[]): HostFinding[] {
  return hosts.flatMap(({ name, problem }) =>
    problem === undefined
      ? []
      : [
          {
            what: 'host',
            severity: 'refuses',
            hosts: [name],
            found: { [name]: problem.message },
            mend: problem.mend,
          },
        ],
  );
}

function withoutEnvironment(hosts: readonly HostFacts[]): HostFinding[] {
  const found = hosts.flatMap(({ name, noEnvironment }) =>
    noEnvironment === undefined || noEnvironment.later ? [] : [[name, noEnvironment.reason]],
  );
  if (found.length === 0) return [];
  return [
    {
      what: 'environment',
      severity: 'refuses',
      hosts: found.map(([name]) => String(name)),
      found: Object.fromEntries(found) as Record<string, string>,
      mend: 'Install it there, or correct the path of its Python.',
    },
  ];
}

/** An environment that is still to be made would fill the disk of its user's home. */
function withoutRoom(nodes: readonly HostFacts[]): HostFinding[] {
  const found = nodes.filter(isKnown).flatMap(({ name, noEnvironment, fingerprint }) => {
    const room = fingerprint.folders['environments'];
    const needed = noEnvironment?.room ?? 0;
    if (room === undefined || room === null || room.free >= needed) return [];
    return [[name, `${gib(room.free)} free at ${room.path}, ${gib(needed)} needed`] as const];
  });
  if (found.length === 0) return [];
  const names = found.map(([name]) => name);
  return [
    {
      what: 'room for the environment',
      severity: 'warns',
      hosts: names,
      found: Object.fromEntries(found),
      mend: `Free some space in the home of the user on ${names.join(', ')}, or make ~/.cache a link to a larger disk; what uv has kept of other environments is not counted here.`,
    },
  ];
}

/** How wrong a clock is at least, in seconds; positive: ahead. */
export function leastSkew({ least, most }: { least: number; most: number }): number {
  if (least > 0) return least;
  return most < 0 ? most : 0;
}

function clocks(nodes: readonly HostFacts[]): HostFinding[] {
  const skews = nodes.flatMap(({ name, clock }) => {
    const skew = clock === undefined ? 0 : leastSkew(clock);
    return Math.abs(skew) > SKEW_WARNS_S ? [{ name, skew }] : [];
  });
  if (skews.length === 0) return [];
  const worst = Math.max(...skews.map(({ skew }) => Math.abs(skew)));
  return [
    {
      what: 'clock',
      severity: worst > SKEW_REFUSES_S ? 'refuses' : 'warns',
      hosts: skews.map(({ name }) => name),
      found: Object.fromEntries(
        skews.map(({ name, skew }) => [
          name,
          `at least ${Math.abs(skew).toFixed(1)} s ${skew > 0 ? 'ahead' : 'behind'}`,
        ]),
      ),
      mend: `Turn on NTP (timedatectl set-ntp true, or chrony) on ${skews.map(({ name }) => name).join(', ')}, and here if all differ alike; on WSL: wsl --shutdown.`,
    },
  ];
}

function low(
  hosts: readonly HostFacts[],
  what: string,
  of: (fingerprint: Fingerprint) => string | undefined,
  mend: (hosts: string) => string,
): HostFinding[] {
  const found = hosts.filter(isKnown).flatMap(({ name, fingerprint }) => {
    const value = of(fingerprint);
    return value === undefined ? [] : [[name, value] as const];
  });
  if (found.length === 0) return [];
  const names = found.map(([name]) => name);
  const mended = mend(names.join(', '));
  return [
    { what, severity: 'warns', hosts: names, found: Object.fromEntries(found), mend: mended },
  ];
}

const gib = (bytes: number): string => `${(bytes / GIB).toFixed(1)} GiB`;

function lowDisk({ folders }: Fingerprint): string | undefined {
  // That of environments is a matter only while one is to be made.
  const rooms = Object.entries(folders).flatMap(([name, room]) =>
    room === null || name === 'environments' ? [] : [room],
  );
  const found = rooms.filter(
    ({ free, total }) => free < DISK_LEAST || free < (1 - DISK_FULLEST) * total,
  );
  if (found.length === 0) return undefined;
  return found
    .map(({ path, free, total }) => `${gib(free)} of ${gib(total)} free at ${path}`)
    .join(', ');
}

function lowShm({ shm, gpus, system }: Fingerprint): string | undefined {
  // Only Linux has it.
  if (shm === null) return system.startsWith('macOS') ? undefined : 'missing';
  const least = (gpus?.cards.length ?? 0) > 1 ? SHM_LEAST_GPUS : SHM_LEAST;
  return shm.free < least ? `${gib(shm.free)} free` : undefined;
}
