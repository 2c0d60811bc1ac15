import { type ChildProcess, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { paths } from '../../dist/setup/paths.js';
import type { Home } from '../lab/home.js';
import { isAlive, poll, processesOf, signal } from '../lab/processes.js';
import type { Host, Network } from './network.js';

const GCS_PORT = 6379;
const DASHBOARD_PORT = 8265;

/** A Ray cluster with a host for each node, brought up by hand: Rankflow attaches to it and never tears it down. */
export class RayOnHosts {
  readonly folder = mkdtempSync(path.join(tmpdir(), 'rcn-'));
  readonly tokenFile: string;
  readonly #nodes = new Map<string, ChildProcess>();

  constructor(
    private readonly home: Home,
    private readonly network: Network,
    private readonly head: Host,
    private readonly token: string,
  ) {
    this.tokenFile = home.file('ray-token');
    writeFileSync(this.tokenFile, this.token, { mode: 0o600 });
  }

  /** Flags of `rankflow run` that attach to it. */
  get flags(): string[] {
    const { address } = this.head;
    return [
      ...['--address', `${address}:${GCS_PORT}`],
      ...['--dashboard-url', `http://${address}:${DASHBOARD_PORT}`],
      ...['--ray-token-file', this.tokenFile],
    ];
  }

  /**
   * Starts the node of a host, unless it runs, and waits until the head knows it. A node that was cut off for long
   * ends a while after it is back, when it hears that Ray gave it up, and is started again then.
   *
   * @throws Error when it does not come up within two minutes
   */
  async start(host: Host): Promise<void> {
    const joined = await poll(
      async () => {
        const running = this.#nodes.get(host.name)?.pid;
        if (running === undefined || !isAlive(running)) this.#launch(host);
        return (await this.#isAlive(host)) || undefined;
      },
      120,
      500,
    );
    if (joined === undefined) throw new Error(`node ${host.name} did not come up`);
  }

  #launch(host: Host): void {
    const folder = path.join(this.folder, host.name);
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(path.join(folder, 't'), { recursive: true });
    const isHead = host === this.head;
    const args = [
      ...['-m', 'ray.scripts.scripts', 'start', '--block', '--disable-usage-stats'],
      ...(isHead
        ? [
            '--head',
            `--port=${GCS_PORT}`,
            '--dashboard-host=0.0.0.0',
            `--dashboard-port=${DASHBOARD_PORT}`,
          ]
        : [`--address=${this.head.address}:${GCS_PORT}`]),
      `--node-ip-address=${host.address}`,
      `--node-name=${host.name}`,
      `--temp-dir=${folder}`,
      `--num-cpus=${isHead ? 0 : 1}`,
      '--num-gpus=0',
      `--object-store-memory=${128 * 1024 * 1024}`,
    ];
    const log = openSync(this.home.file('logs', `${host.name}.log`), 'a');
    const [command, all] = this.network.command(host, this.home.python, args);
    const child = spawn(command, all, {
      detached: true,
      stdio: ['ignore', log, log],
      env: {
        ...process.env,
        ...this.home.environment,
        RAY_AUTH_MODE: 'token',
        RAY_AUTH_TOKEN_PATH: this.tokenFile,
        RANKFLOW_HOME: this.home.folder,
        PATH: [path.dirname(this.home.python), process.env['PATH']].join(':'),
        PYTHONPATH: paths.pythonProject,
        RAY_worker_niceness: '0',
        TMPDIR: path.join(folder, 't'),
      },
    });
    child.unref();
    closeSync(log);
    this.#nodes.set(host.name, child);
  }

  async #isAlive(host: Host): Promise<boolean> {
    try {
      const url = `http://${this.head.address}:${DASHBOARD_PORT}/api/v0/nodes?detail=1`;
      const response = await fetch(url, {
        headers: { authorization: `Bearer ${this.token}` },
        signal: AbortSignal.timeout(5000),
      });
      const { data } = (await response.json()) as NodesAnswer;
      return data.result.result.some(
        ({ node_name: name, state }) => name === host.name && state === 'ALIVE',
      );
    } catch {
      return false;
    }
  }

  /** Ends all nodes and whatever they started, and removes their temporary folders. */
  async stop(): Promise<void> {
    for (const { pid } of this.#nodes.values()) {
      if (pid !== undefined) signal(-pid, 'SIGKILL');
    }
    await poll(
      () => {
        const left = processesOf(this.home.folder).filter(({ command }) => /ray/u.test(command));
        for (const { pid } of left) signal(pid, 'SIGKILL');
        return left.length === 0 ? true : undefined;
      },
      30,
      500,
    );
    if (existsSync(this.folder)) rmSync(this.folder, { recursive: true, force: true });
  }
}

interface NodesAnswer {
  readonly data: {
    readonly result: {
      readonly result: readonly { readonly node_name: string; readonly state: string }[];
    };
  };
}
