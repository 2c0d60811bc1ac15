import { randomBytes } from 'node:crypto';

import type { StoreTrip } from '../contracts/hosts.js';
import type { StoreFacts } from './alike/facts.js';
import { HostError } from './host.js';
import { lendPackage, type LentPackage } from './lend.js';
import { ProbeError, storeTrip, type PythonOnHost } from './probe.js';
import type { Able } from './respondent.js';

/** A host on its trip. */
interface Traveller {
  readonly name: string;
  readonly python: PythonOnHost;
  readonly lent?: LentPackage;
}

/**
 * Lets every host write a token into the store, then every host read those of all, then each remove its own. A host
 * whose environment is still to be made cannot; one that only lacks Rankflow's files is lent them.
 *
 * @param environment settings and credentials of the store
 */
export async function tripStore(
  able: readonly Able[],
  store: string,
  environment?: Readonly<Record<string, string>>,
): Promise<StoreFacts> {
  const nodes = able.filter(({ facts }) => facts.role !== 'control');
  const ready = nodes.filter((node) => node.environment);
  const notAsked = nodes.filter((node) => !node.environment).map(({ facts }) => facts.name);
  const trip = randomBytes(8).toString('hex');
  const failed: [string, StoreTrip][] = [];
  const travellers = (
    await Promise.all(
      ready.map(async (host) =>
        equip(host).catch((error: unknown) => {
          failed.push([host.facts.name, trouble(error)]);
          return undefined;
        }),
      ),
    )
  ).filter((one) => one !== undefined);
  const ask = async (action: 'write' | 'read' | 'remove', hosts: readonly string[]) =>
    Promise.all(
      travellers.map(async ({ name, python }) => {
        const request = { action, store, trip, host: name, hosts };
        const whole = environment === undefined ? request : { ...request, environment };
        return [name, await storeTrip(python, whole).catch(trouble)] as const;
      }),
    );
  try {
    const wrote = await ask('write', []);
    const writers = wrote.filter(([, answer]) => answer.written).map(([name]) => name);
    const read = new Map(writers.length === 0 ? [] : await ask('read', writers));
    await ask('remove', []);
    const trips = wrote.map(([name, answer]) => [name, { ...read.get(name), ...answer }] as const);
    return { store, trips: Object.fromEntries([...trips, ...failed]), notAsked };
  } finally {
    await Promise.all(travellers.map(async ({ lent }) => lent?.takeBack()));
  }
}

async function equip({ python, facts: { name, fingerprint } }: Able): Promise<Traveller> {
  if (fingerprint?.rankflowHash) return { name, python };
  const lent = await lendPackage(python.host);
  return { name, lent, python: { ...python, env: { ...python.env, PYTHONPATH: lent.folder } } };
}

function trouble(error: unknown): StoreTrip {
  if (error instanceof ProbeError || error instanceof HostError) return { problem: error.message };
  throw error;
}
