import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { Connection } from '@temporalio/client';
import { execa } from 'execa';
import getPort, { portNumbers } from 'get-port';

import { readIfExists } from '../../src/setup/files.js';
import { paths } from '../../src/setup/paths.js';
import { findTemporal } from '../../src/setup/temporal.js';

/** The one that `docker-compose.yml` names. */
export const VERSION = 'v1.29.1';
const MODULE = 'go.temporal.io/server';
const HOST = '127.0.0.1';
const USER = 'temporal';
const SCHEMAS = { temporal: 'temporal', temporal_visibility: 'visibility' };
const STARTS_MS = 90_000;

/** Programs of the server, built once from its Go module. */
export const built = path.join(paths.home, 'production', VERSION);

/** Where Debian keeps the newest PostgreSQL; undefined without one. */
function postgresFolder(): string | undefined {
  const root = '/usr/lib/postgresql';
  if (!existsSync(root)) return undefined;
  const newest = readdirSync(root).toSorted((a, b) => Number(b) - Number(a))[0];
  return newest && path.join(root, newest, 'bin');
}

/** Whether a program is there. */
export async function has(command: string): Promise<boolean> {
  return (await execa('which', [command], { reject: false })).exitCode === 0;
}

/** The server keeps ports in a column for numbers below 32,768. */
const freePort = async (): Promise<number> => getPort({ port: portNumbers(20_000, 29_999) });

/** What is missing on this machine for a server on PostgreSQL; empty when nothing is. */
export async function missing(): Promise<string[]> {
  const found = { go: await has('go'), postgresql: postgresFolder() !== undefined };
  return Object.entries(found).flatMap(([name, there]) => (there ? [] : [name]));
}

/** Builds what is not built yet; where PostgreSQL and Temporal's command line are, for containers to run. */
export async function prepare() {
  const postgres = postgresFolder();
  const temporal = await findTemporal();
  if (postgres === undefined || temporal === undefined)
    throw new Error('no PostgreSQL or Temporal');
  await build();
  return { postgres, temporal };
}

/** Temporal as it is run in production, one process of each: the server's own program, on PostgreSQL. */
export class ProductionServer {
  #database: ChildProcess | undefined;
  #server: ChildProcess | undefined;
  readonly #password = randomBytes(16).toString('hex');

  private constructor(
    private readonly folder: string,
    private readonly postgres: string,
    private readonly ports: { readonly database: number; readonly frontend: number },
  ) {}

  get address(): string {
    return `${HOST}:${this.ports.frontend}`;
  }

  /** Builds what has to be built (minutes, once), makes a database with its schema, and starts both. */
  static async start(): Promise<ProductionServer> {
    const postgres = postgresFolder();
    if (postgres === undefined) throw new Error('no PostgreSQL: apt-get install postgresql');
    await build();
    const folder = mkdtempSync(path.join(tmpdir(), 'rfp-'));
    const ports = { database: await freePort(), frontend: await freePort() };
    const server = new ProductionServer(folder, postgres, ports);
    try {
      await server.#initialize();
      await server.startDatabase();
      await server.#createSchemas();
      await server.#startServer();
    } catch (error) {
      const said = server.log();
      server.stop();
      throw new Error(`the production server did not start:\n${said}`, { cause: error });
    }
    return server;
  }

  /** A user's own program, or that of an ordinary user when this is root: PostgreSQL refuses root. */
  #asUser(program: string, args: readonly string[]): [string, string[]] {
    const command = path.join(this.postgres, program);
    if (process.getuid?.() !== 0) return [command, [...args]];
    return [
      'setpriv',
      ['--reuid=postgres', '--regid=postgres', '--clear-groups', '--', command, ...args],
    ];
  }

  get #data(): string {
    return path.join(this.folder, 'database');
  }

  async #initialize(): Promise<void> {
    mkdirSync(this.#data, { recursive: true });
    const password = path.join(this.folder, 'password');
    writeFileSync(password, this.#password, { mode: 0o600 });
    if (process.getuid?.() === 0) {
      const { stdout } = await execa('id', ['-u', 'postgres']);
      for (const file of [this.folder, this.#data, password]) chownSync(file, Number(stdout), -1);
    }
    const args = ['-D', this.#data, '-U', USER, '-A', 'scram-sha-256', `--pwfile=${password}`];
    await execa(...this.#asUser('initdb', args));
  }

  async startDatabase(): Promise<void> {
    const args = ['-D', this.#data, '-h', HOST, '-p', `${this.ports.database}`, '-k', this.#data];
    this.#database = this.#launch('database.log', ...this.#asUser('postgres', args));
    await until(async () => {
      const { exitCode } = await execa(
        path.join(this.postgres, 'pg_isready'),
        ['-h', HOST, '-p', `${this.ports.database}`],
        { reject: false },
      );
      return exitCode === 0;
    });
  }

  /** SIGKILL for every process of the database: what was not yet on disk is lost. */
  killDatabase(): void {
    kill(this.#database, 'SIGKILL');
  }

  async #createSchemas(): Promise<void> {
    const endpoint = ['--ep', HOST, '-p', `${this.ports.database}`, '-u', USER];
    for (const [database, schema] of Object.entries(SCHEMAS)) {
      const tool = async (...args: string[]) =>
        execa(
          path.join(built, 'sql'),
          [...endpoint, '--pl', 'postgres12', '--db', database, ...args],
          { env: { SQL_PASSWORD: this.#password } },
        );
      await tool('create');
      await tool('setup-schema', '-v', '0.0');
      await tool('update-schema', '--schema-name', `postgresql/v12/${schema}`);
    }
  }

  async #startServer(): Promise<void> {
    const dynamic = path.join(this.folder, 'dynamic.yaml');
    writeFileSync(
      dynamic,
      [
        'matching.enableFairness: [{ value: true }]',
        'matching.numTaskqueueWritePartitions: [{ value: 1 }]',
        '',
      ].join('\n'),
    );
    const config = path.join(this.folder, 'config');
    mkdirSync(config, { recursive: true });
    writeFileSync(
      path.join(config, 'production.yaml'),
      JSON.stringify(await this.#config(dynamic), undefined, 2),
      { mode: 0o600 },
    );
    this.#server = this.#launch('server.log', path.join(built, 'server'), [
      ...['--root', this.folder, '--config', 'config', '--env', 'production'],
      ...['--allow-no-auth', 'start'],
    ]);
    await until(async () => {
      try {
        const connection = await Connection.connect({
          address: this.address,
          connectTimeout: 2000,
        });
        await connection.close();
        return true;
      } catch {
        return false;
      }
    });
    const temporal = await findTemporal();
    await execa(temporal?.command ?? 'temporal', [
      ...['operator', 'namespace', 'create', '--namespace', 'default', '--retention', '72h'],
      ...['--address', this.address],
    ]);
    // Its caches of namespaces are refreshed every few seconds.
    await until(async () => {
      const { exitCode } = await execa(
        temporal?.command ?? 'temporal',
        ['workflow', 'list', '--namespace', 'default', '--address', this.address],
        { reject: false },
      );
      return exitCode === 0;
    });
  }

  /** As the server's own example for PostgreSQL, on ports of its own. */
  async #config(dynamic: string): Promise<unknown> {
    const store = (databaseName: string) => ({
      sql: {
        ...{ pluginName: 'postgres12', databaseName, connectProtocol: 'tcp' },
        ...{ connectAddr: `${HOST}:${this.ports.database}`, user: USER, password: this.#password },
        ...{ maxConns: 20, maxIdleConns: 20, maxConnLifetime: '1h' },
      },
    });
    const service = async (grpcPort?: number) => ({
      rpc: {
        grpcPort: grpcPort ?? (await freePort()),
        membershipPort: await freePort(),
        bindOnLocalHost: true,
      },
    });
    return {
      log: { stdout: true, level: 'warn' },
      persistence: {
        ...{ defaultStore: 'default', visibilityStore: 'visibility', numHistoryShards: 4 },
        datastores: { default: store('temporal'), visibility: store('temporal_visibility') },
      },
      global: { membership: { maxJoinDuration: '30s', broadcastAddress: HOST } },
      services: {
        frontend: await service(this.ports.frontend),
        matching: await service(),
        history: await service(),
        worker: await service(),
      },
      clusterMetadata: {
        ...{ enableGlobalNamespace: false, failoverVersionIncrement: 10 },
        ...{ masterClusterName: 'active', currentClusterName: 'active' },
        clusterInformation: {
          active: {
            ...{ enabled: true, initialFailoverVersion: 1, rpcName: 'frontend' },
            rpcAddress: this.address,
          },
        },
      },
      dcRedirectionPolicy: { policy: 'noop' },
      dynamicConfigClient: { filepath: dynamic, pollInterval: '10s' },
    };
  }

  #launch(log: string, command: string, args: readonly string[]): ChildProcess {
    const file = openSync(path.join(this.folder, log), 'a');
    const child = spawn(command, args, { detached: true, stdio: ['ignore', file, file] });
    closeSync(file);
    return child;
  }

  /** The end of the server's log, to explain a failure. */
  log(): string {
    return (readIfExists(path.join(this.folder, 'server.log')) ?? '').slice(-4000);
  }

  stop(): void {
    kill(this.#server, 'SIGKILL');
    kill(this.#database, 'SIGKILL');
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Builds them unless they are there: minutes. */
async function build(): Promise<void> {
  if (existsSync(path.join(built, 'server')) && existsSync(path.join(built, 'sql'))) return;
  const packages = ['cmd/server', 'cmd/tools/sql'].map((name) => `${MODULE}/${name}@${VERSION}`);
  for (const name of packages) await execa('go', ['install', name], { env: { GOBIN: built } });
}

function kill(child: ChildProcess | undefined, signal: NodeJS.Signals): void {
  if (child?.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It has ended.
  }
}

async function until(check: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + STARTS_MS;
  while (!(await check())) {
    if (Date.now() > deadline) throw new Error('the production server did not come up');
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}
