import { readFile } from 'node:fs/promises';

import { z } from 'zod';

import type { RayNode } from '../contracts/activities.js';
import type { ClusterAddress } from '../contracts/cluster.js';
import { RAY_NAMESPACE } from '../contracts/names.js';

/** What another try does not change: the address is none, or the token is not that of the cluster. */
export class RayRefusal extends Error {
  override readonly name = 'RayRefusal';
}

/** Ray's state API answers in well under a second, on a busy head in a few. */
const ANSWER_MS = 10_000;
/** The most that the state API gives at once (RAY_MAX_LIMIT_FROM_API_SERVER). */
const LIMIT = 10_000;

/** The envelope of every answer of `/api/v0/*`. */
const answerOf = <T extends z.ZodType>(item: T) =>
  z.object({
    result: z.boolean(),
    msg: z.string().nullish(),
    data: z.object({ result: z.object({ result: z.array(item) }) }).nullish(),
  });

const NodeState = z.object({
  node_id: z.string(),
  node_ip: z.string(),
  node_name: z.string(),
  is_head_node: z.boolean(),
  state: z.string(),
  resources_total: z.record(z.string(), z.number()),
  start_time_ms: z.number().nullish(),
  end_time_ms: z.number().nullish(),
});

const ActorState = z.object({
  actor_id: z.string(),
  name: z.string().nullish(),
  state: z.enum(['DEPENDENCIES_UNREADY', 'PENDING_CREATION', 'ALIVE', 'RESTARTING', 'DEAD']),
  node_id: z.string().nullish(),
  pid: z.number().nullish(),
  num_restarts: z.coerce.number().catch(0),
  death_cause: z.unknown(),
  /** Where it may be placed, by labels of nodes. Absent from versions of Ray that do not say. */
  label_selector: z.record(z.string(), z.string()).nullish(),
});
/** One actor as Ray's state API shows it, DEAD ones included. */
export type ActorState = z.infer<typeof ActorState>;

/** A node with the moments its raylet registered and was lost, in milliseconds since the epoch. */
export interface TimedRayNode extends RayNode {
  readonly startedAtMs: number;
  /** When Ray gave a lost one up; 0 while it is alive. */
  readonly endedAtMs: number;
}

/** Environment with which Ray's own commands reach a cluster. Names the file of the token, never the token. */
export function rayAuthEnvironment(tokenFile: string | undefined): Record<string, string> {
  return tokenFile === undefined
    ? { RAY_AUTH_MODE: 'disabled' }
    : { RAY_AUTH_MODE: 'token', RAY_AUTH_TOKEN_PATH: tokenFile };
}

/**
 * All nodes that the head knows, lost ones included.
 *
 * @throws Error when the state API does not answer within 10 s; RayRefusal when it refuses the token, or has none
 */
export async function listNodes(cluster: ClusterAddress): Promise<TimedRayNode[]> {
  const nodes = await get(cluster, 'nodes', NodeState, {});
  return nodes.map((node) => ({
    nodeId: node.node_id,
    name: node.node_name,
    ip: node.node_ip,
    head: node.is_head_node,
    alive: node.state === 'ALIVE',
    cpus: node.resources_total['CPU'] ?? 0,
    gpus: node.resources_total['GPU'] ?? 0,
    startedAtMs: node.start_time_ms ?? 0,
    endedAtMs: node.end_time_ms ?? 0,
  }));
}

/**
 * The actors in Rankflow's namespace, dead ones included.
 *
 * @throws Error like {@link listNodes}
 */
export async function listActors(cluster: ClusterAddress): Promise<ActorState[]> {
  return get(cluster, 'actors', ActorState, {
    filter_keys: 'ray_namespace',
    filter_predicates: '=',
    filter_values: RAY_NAMESPACE,
  });
}

const JobState = z.object({ type: z.string().nullish(), status: z.string() });

/**
 * How many jobs that were submitted to the cluster wait or run. Drivers that connect by themselves do not count.
 *
 * @throws Error like {@link listNodes}
 */
export async function countJobs(cluster: ClusterAddress): Promise<number> {
  const jobs = z.array(JobState).parse(await request(cluster, '/api/jobs/', {}));
  return jobs.filter(
    ({ type, status }) => type === 'SUBMISSION' && (status === 'PENDING' || status === 'RUNNING'),
  ).length;
}

async function get<T extends z.ZodType>(
  cluster: ClusterAddress,
  what: string,
  item: T,
  query: Record<string, string>,
): Promise<z.infer<T>[]> {
  const parameters = { limit: String(LIMIT), detail: '1', ...query };
  const answer = await request(cluster, `/api/v0/${what}`, parameters);
  const { result, msg, data } = answerOf(item).parse(answer);
  if (!result || !data) throw new Error(`Ray cannot list ${what}: ${msg ?? 'no reason given'}`);
  return data.result.result;
}

async function request(
  cluster: ClusterAddress,
  what: string,
  query: Record<string, string>,
): Promise<unknown> {
  if (!URL.canParse(what, cluster.dashboardUrl)) {
    throw new RayRefusal(`${cluster.dashboardUrl} is no URL`);
  }
  const url = new URL(what, cluster.dashboardUrl);
  url.search = String(new URLSearchParams(query));
  const response = await fetch(url, {
    headers: await authorization(cluster.tokenFile),
    signal: AbortSignal.timeout(ANSWER_MS),
  });
  if (response.status === 401 || response.status === 403) {
    const given =
      cluster.tokenFile === undefined ? 'no token' : `the token in ${cluster.tokenFile}`;
    throw new RayRefusal(`${url.origin} refuses ${given}: it is not that of this cluster`);
  }
  if (!response.ok) throw new Error(`${url.origin} answers ${response.status} to ${what}`);
  return response.json();
}

/**
 * The header that Ray's dashboard expects when token authentication is on.
 *
 * @throws RayRefusal when there is no such file, or it may not be read
 */
export async function authorization(
  tokenFile: string | undefined,
): Promise<Record<string, string>> {
  if (tokenFile === undefined) return {};
  try {
    return { authorization: `Bearer ${(await readFile(tokenFile, 'utf8')).trim()}` };
  } catch (error) {
    const message = `the token file ${tokenFile} cannot be read: ${(error as Error).message}`;
    throw new RayRefusal(message, { cause: error });
  }
}

/** Why a request failed, in one line: `fetch failed` alone helps nobody. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  if (error instanceof RayRefusal) return error.message;
  return cause instanceof Error ? `${error.message}: ${cause.message}` : error.message;
}
