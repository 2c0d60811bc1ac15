import { authorization, listActors, reasonOf } from '../activities/ray-state.js';
import type { ClusterAddress } from '../contracts/cluster.js';
import { engineActorName } from '../contracts/names.js';
import type { FleetStatus } from '../contracts/workflows.js';

export interface EngineLog {
  /** `<fleet>/slot-<n>`. */
  readonly source: string;
  readonly actorId: string;
}

/**
 * The engines of a fleet that Ray has logs of: those that are there, or were last.
 *
 * @throws Error when the head of the cluster does not answer
 */
export async function engineLogs(
  cluster: ClusterAddress,
  { name, specHash, slots }: FleetStatus,
  slot?: number,
): Promise<EngineLog[]> {
  const actors = await listActors(cluster);
  return slots
    .filter((one) => slot === undefined || one.slot === slot)
    .flatMap((one) => {
      const named = actors.filter(
        (actor) => actor.name === engineActorName(name, specHash, one.slot),
      );
      // Ray also lists the dead ones that a slot had before.
      const actor = named.find(({ state }) => state !== 'DEAD') ?? named.at(-1);
      return actor === undefined
        ? []
        : [{ source: `${name}/slot-${one.slot}`, actorId: actor.actor_id }];
    });
}

/**
 * The last lines that an engine's process wrote, over Ray's log API: they are on its node.
 *
 * @param follow goes on with those that come, until it is aborted
 * @throws Error when the head of the cluster does not answer, or has no log of it
 */
export async function* engineLines(
  cluster: ClusterAddress,
  { actorId, source }: EngineLog,
  lines: number,
  follow?: AbortSignal,
): AsyncGenerator<string> {
  const url = new URL(
    `/api/v0/logs/${follow === undefined ? 'file' : 'stream'}`,
    cluster.dashboardUrl,
  );
  const asked = { actor_id: actorId, suffix: 'out', lines: String(lines) };
  url.search = String(new URLSearchParams(asked));
  try {
    const headers = await authorization(cluster.tokenFile);
    const answer = await fetch(url, { headers, ...(follow && { signal: follow }) });
    if (!answer.ok || answer.body === null) throw new Error(`Ray answers ${answer.status}`);
    const decoder = new TextDecoder();
    let rest = '';
    for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
      const found = `${rest}${decoder.decode(chunk, { stream: true })}`.split('\n');
      rest = found.pop() ?? '';
      yield* found;
    }
    if (rest !== '') yield rest;
  } catch (error) {
    if (follow?.aborted) return;
    throw new Error(`no log of ${source}: ${reasonOf(error)}`, { cause: error });
  }
}
