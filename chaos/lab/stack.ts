import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { Client, Connection } from '@temporalio/client';

import { listFleets } from '../../dist/client/fleets.js';
import { clusterWorkflowId, fleetWorkflowId, QUERY } from '../../dist/contracts/names.js';
import type { ClusterStatus, FleetStatus } from '../../dist/contracts/workflows.js';
import { type Engine, enginesOf } from './engines.js';
import type { Home } from './home.js';
import { type ProcessInfo, isAlive, processInfo, processTable } from './processes.js';

/** Parts of `stack/state.json`. */
interface StackState {
  readonly supervisor: { readonly pid: number };
  readonly address: string;
  readonly processes: readonly {
    readonly name: string;
    readonly status: string;
    readonly process?: { readonly pid: number };
  }[];
}

/** Names of the processes that the supervisor keeps. */
export type StackProcess = 'temporal' | 'control-worker' | 'python-worker';

/** A query of a workflow whose worker is away does not return by itself. */
const QUERY_MS = 5_000;

/** The local stack of a data folder and the Ray nodes that it starts: who runs under which pid. */
export class Stack {
  #client: Client | undefined;
  #address: string | undefined;
  #starting = 0;

  /** @param server address of a Temporal server that is not the stack's own */
  constructor(
    readonly home: Home,
    readonly server?: string,
  ) {}

  /** `rankflow up`, with more variables for its processes. */
  async up(environment: Readonly<Record<string, string>> = {}): Promise<void> {
    this.#starting += 1;
    try {
      await this.home.rankflow(['up'], { ...this.variables(), ...environment });
    } finally {
      this.#starting -= 1;
    }
  }

  /** Whether somebody waits for it to be up: who kills it now makes that fail. */
  get isStarting(): boolean {
    return this.#starting > 0;
  }

  /** @param keep whether the Ray nodes and the engines go on */
  async down(keep = false): Promise<void> {
    await this.#client?.connection.close();
    this.#client = undefined;
    await this.home.rankflow(['down', ...(keep ? ['--keep'] : [])]);
  }

  /** Variables that name the server, for commands. */
  variables(): Record<string, string> {
    return this.server === undefined ? {} : { TEMPORAL_ADDRESS: this.server };
  }

  /** A client of the stack's server; it survives restarts of the server at its address. */
  async client(): Promise<Client> {
    const address = this.server ?? this.state()?.address ?? this.#address;
    if (address === undefined) throw new Error('the stack is not up');
    if (this.#client !== undefined && address === this.#address) return this.#client;
    await this.#client?.connection.close();
    const connection = await Connection.connect({ address, connectTimeout: QUERY_MS });
    this.#address = address;
    this.#client = new Client({ connection });
    return this.#client;
  }

  state(): StackState | undefined {
    return this.home.json('stack', 'state.json') as StackState | undefined;
  }

  /** Pid of the supervisor, when it runs. */
  supervisor(): number | undefined {
    const pid = this.state()?.supervisor.pid;
    return pid !== undefined && isAlive(pid) ? pid : undefined;
  }

  /** Pid of a process of the stack, when it runs. */
  process(name: StackProcess): number | undefined {
    const pid = this.state()?.processes.find((one) => one.name === name)?.process?.pid;
    return pid !== undefined && isAlive(pid) ? pid : undefined;
  }

  /**
   * Children that the Python worker works through: `plan`, `finalize`, `deploy`, `check-engine-args`. The command line
   * has such children too, and gives up without them.
   */
  children(task?: string): ProcessInfo[] {
    const worker = this.process('python-worker');
    return processTable()
      .filter(({ parent }) => parent === worker)
      .filter(({ command }) => /-m rankflow\.(?:rows|control) /u.test(command))
      .filter(({ command }) => task === undefined || command.endsWith(` ${task}`));
  }

  /** Names of the nodes of a local cluster that were started, `head` among them. */
  nodes(cluster: string): string[] {
    try {
      return readdirSync(this.home.file('clusters', cluster))
        .filter((file) => file.endsWith('.json'))
        .map((file) => file.replace(/\.json$/u, ''));
    } catch {
      return [];
    }
  }

  /** Folder with the sockets and logs of a local cluster's nodes, as the product names it. */
  sessionFolder(cluster: string): string {
    const name = createHash('sha256').update(`${this.home.folder}\0${cluster}`).digest('hex');
    return path.join(tmpdir(), `rf-${name.slice(0, 8)}`);
  }

  /** Pid of the process that leads a node's group, when it runs. */
  nodeLeader(cluster: string, node: string): number | undefined {
    const record = this.home.json('clusters', cluster, `${node}.json`) as
      { process: { pid: number } } | undefined;
    const pid = record?.process.pid;
    return pid !== undefined && processInfo(pid) !== undefined ? pid : undefined;
  }

  /** Engines of all fleets that are up. */
  async engines(): Promise<Engine[]> {
    const fleets = await listFleets(await this.client());
    const statuses = await Promise.all(fleets.map(async (fleet) => this.fleetStatus(fleet)));
    return statuses.flatMap(enginesOf);
  }

  async fleetStatus(fleet: string): Promise<FleetStatus | undefined> {
    return this.query<FleetStatus>(fleetWorkflowId(fleet), QUERY.status);
  }

  async clusterStatus(cluster: string): Promise<ClusterStatus | undefined> {
    return this.query<ClusterStatus>(clusterWorkflowId(cluster), QUERY.status);
  }

  /** What a workflow answers; undefined when it is not there, or nobody answers in 5 s. */
  async query<T>(workflowId: string, name: string): Promise<T | undefined> {
    try {
      const client = await this.client();
      return await client.withDeadline(
        Date.now() + QUERY_MS,
        async () => (await client.workflow.getHandle(workflowId).query(name)) as T,
      );
    } catch {
      return undefined;
    }
  }

  /** Temporal's status of a workflow, such as RUNNING; undefined when it is not there or nobody answers. */
  async workflowStatus(workflowId: string): Promise<string | undefined> {
    try {
      const client = await this.client();
      return await client.withDeadline(Date.now() + QUERY_MS, async () => {
        const { status } = await client.workflow.getHandle(workflowId).describe();
        return status.name;
      });
    } catch {
      return undefined;
    }
  }
}
