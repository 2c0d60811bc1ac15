import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';

import { type Host, Network } from '../../../chaos/network/network.js';
import type { Image } from './images.js';
import type { Project, Service } from './project.js';

/** A machine that is busy with something else takes minutes for a Ray node. */
const STARTS_MS = 600_000;
const ENDS_MS = 30_000;
/** Between the end of a container and its next start. */
const RESTART_MS = 1000;
const SHM_BYTES = 64 * 2 ** 20;
const script = fileURLToPath(new URL('container.sh', import.meta.url));

/** One container of a service. */
interface Container {
  readonly service: Service;
  readonly image: Image;
  readonly host: Host;
  /** What it runs and where, for `container.sh`. */
  readonly args: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  process?: ChildProcess;
  /** How often it was started again by itself. */
  restarts: number;
  /** Ended by whoever runs it, so it stays down. */
  stopped: boolean;
}

/**
 * Services of a Compose project as processes of this machine, each in namespaces of its own, with the commands,
 * environments, files, users, addresses, health checks and restarts of the file. What images hold is given as `images`.
 */
export class Containers {
  readonly #containers = new Map<string, Container>();

  private constructor(
    private readonly network: Network,
    private readonly folder: string,
    private readonly project: Project,
  ) {}

  /**
   * @param folder where volumes, roots and logs are
   * @param images by the name before the tag; services of others are left out
   */
  static create(
    project: Project,
    folder: string,
    images: Readonly<Record<string, Image>>,
  ): Containers {
    const running = Object.entries(project.services).flatMap(([name, service]) => {
      const image = images[service.image.split(':')[0] ?? ''];
      const replicas = service.deploy?.replicas ?? 1;
      return image === undefined
        ? []
        : Array.from({ length: replicas }, (_, index) => ({
            ...{ name: index === 0 ? name : `${name}-${index + 1}`, service, image },
          }));
    });
    const network = Network.create(running.map((_, index) => `c${index}`));
    const containers = new Containers(network, folder, project);
    try {
      containers.#prepare(running);
    } catch (error) {
      network.remove();
      throw error;
    }
    return containers;
  }

  #prepare(running: readonly { name: string; service: Service; image: Image }[]): void {
    const hosts = path.join(this.folder, 'hosts');
    const lines = running.map(({ name }, index) => `${this.network.hosts[index]?.address} ${name}`);
    writeFileSync(hosts, `127.0.0.1 localhost\n${lines.join('\n')}\n`);
    for (const [index, { name, service, image }] of running.entries()) {
      const host = this.network.hosts[index];
      if (host === undefined) throw new Error('a container has no host');
      // A container has a way out; this one ends at the bridge.
      const gateway = host.address.replace(/\.\d+$/u, '.1');
      const [uid, gid] = image.user;
      const root = path.join(this.folder, 'roots', name);
      mkdirSync(root, { recursive: true });
      const { project } = this;
      const mounts = [
        ...image.mounts,
        ...service.secrets.map((one) => [project.secrets[one.source]?.file ?? '', one.target]),
        ...service.configs.map((one) => [project.configs[one.source]?.file ?? '', one.target]),
        ...service.volumes.map((one) => [this.#volume(one, image), one.target]),
        ...(image.mountsLast ?? []),
      ];
      const command = [
        ...(service.entrypoint ?? image.entrypoint ?? []),
        ...(service.command ?? (service.entrypoint ? [] : (image.command ?? []))),
      ];
      const args = [
        ...[root, String(service.shm_size ?? SHM_BYTES), hosts, String(uid), String(gid)],
        ...[image.folder, ...mounts.map(([source, target]) => `${source}=${target}`)],
        ...['--', ...command],
      ];
      const own = Object.entries(service.environment).flatMap(([key, value]) =>
        value === null ? [] : [[key, value]],
      );
      const environment = {
        HOME: '/home/rankflow',
        ...image.environment,
        ...(Object.fromEntries(own) as Record<string, string>),
      };
      this.#containers.set(name, {
        ...{ service, image, host, args, environment, restarts: 0, stopped: false },
      });
      execFileSync('ip', ['-n', host.namespace, 'route', 'add', 'default', 'via', gateway]);
    }
  }

  #volume({ type, source }: Service['volumes'][number], { user }: Image): string {
    if (type === 'bind') return source;
    const folder = path.join(this.folder, 'volumes', source);
    if (!existsSync(folder)) {
      mkdirSync(folder, { recursive: true });
      chownSync(folder, ...user);
    }
    return folder;
  }

  get names(): string[] {
    return [...this.#containers.keys()];
  }

  /** The address of a service on the network, which this machine is on, too. */
  address(name: string): string {
    return this.#get(name).host.address;
  }

  /** Starts all, each when those that it waits for are as it wants them: as `docker compose up --wait`. */
  async up(): Promise<void> {
    const started = new Map<string, Promise<void>>();
    const start = async (name: string): Promise<void> => {
      let starting = started.get(name);
      if (starting === undefined) {
        starting = this.#startAfter(name, start);
        started.set(name, starting);
      }
      return starting;
    };
    await Promise.all(this.names.map(start));
    await Promise.all(this.names.map(async (name) => this.healthy(name)));
  }

  async #startAfter(name: string, start: (other: string) => Promise<void>): Promise<void> {
    const waits = Object.entries(this.#get(name).service.depends_on);
    await Promise.all(
      waits.map(async ([other, { condition }]) => {
        await start(other);
        if (condition === 'service_healthy') await this.healthy(other);
        else await this.#completed(other);
      }),
    );
    this.start(name);
  }

  /** Starts one, or starts it again; it then starts again by itself as the file says. */
  start(name: string): void {
    const container = this.#get(name);
    Object.assign(container, { restarts: 0, stopped: false });
    this.#launch(name, container);
  }

  #launch(name: string, container: Container): void {
    const { host, args, environment } = container;
    const log = openSync(this.#logOf(name), 'a');
    const child = spawn('ip', ['netns', 'exec', host.namespace, script, ...args], {
      detached: true,
      stdio: ['ignore', log, log],
      env: environment,
    });
    closeSync(log);
    container.process = child;
    child.once('exit', () => {
      setTimeout(() => {
        if (container.process !== child || isOver(container)) return;
        container.restarts += 1;
        this.#launch(name, container);
      }, RESTART_MS);
    });
  }

  /** Waits until the health check of the file says that it is well; at once when it has none. */
  async healthy(name: string): Promise<void> {
    const test = this.#get(name).service.healthcheck?.test;
    if (test === undefined) return;
    const [kind, ...words] = test;
    const command = kind === 'CMD-SHELL' ? ['sh', '-c', words[0] ?? ''] : words;
    const deadline = Date.now() + STARTS_MS;
    for (;;) {
      const { failed, stderr } = await this.exec(name, command, 20_000);
      if (!failed) return;
      if (Date.now() > deadline || isOver(this.#get(name))) {
        throw new Error(`${name} is not healthy: ${stderr}\n${this.log(name)}`);
      }
      await sleep(2000);
    }
  }

  async #completed(name: string): Promise<void> {
    const code = await this.ended(name, STARTS_MS);
    if (code === 0) return;
    await this.startedAgain(name);
    await this.#completed(name);
  }

  /** Waits until one that has ended is started again by itself. */
  async startedAgain(name: string): Promise<void> {
    const container = this.#get(name);
    while (hasEnded(container.process)) {
      if (isOver(container)) throw new Error(`${name} has ended:\n${this.log(name)}`);
      await sleep(200);
    }
  }

  /** Waits until it has ended, and returns its exit code; of one that starts again, until this start of it has. */
  async ended(name: string, withinMs: number): Promise<number | null> {
    const child = this.#get(name).process;
    const deadline = Date.now() + withinMs;
    for (;;) {
      if (hasEnded(child)) return child?.exitCode ?? null;
      if (Date.now() > deadline) throw new Error(`${name} has not ended:\n${this.log(name)}`);
      await sleep(200);
    }
  }

  /** A command in a container that runs, as `docker compose exec`: as its user, in its folder. Never throws. */
  exec(name: string, command: readonly string[], timeout = 1_500_000) {
    const { environment, image } = this.#get(name);
    const [uid, gid] = image.user;
    return execa(
      'nsenter',
      [
        ...['-t', String(this.#firstProcess(name)), '-m', '-p', '-n', '-i', '-r'],
        ...['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', '--'],
        ...['sh', '-c', `cd '${image.folder}' && exec "$@"`, 'sh', ...command],
      ],
      { reject: false, timeout, cwd: '/', env: environment, extendEnv: false },
    );
  }

  /** The first process of a container, by its number on this machine; 0 when there is none. */
  #firstProcess(name: string): number {
    const { pid } = this.#get(name).process ?? {};
    if (pid === undefined) return 0;
    try {
      return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0]);
    } catch {
      return 0;
    }
  }

  /** Ends one with everything in it, without a word; it stays down. */
  kill(name: string): void {
    this.#stop(name, 'SIGKILL');
  }

  #stop(name: string, signal: NodeJS.Signals): void {
    this.#get(name).stopped = true;
    const pid = this.#firstProcess(name);
    if (pid > 1) process.kill(pid, signal);
  }

  /** Ends all as `docker compose down`: with time for those that want it. */
  async down(): Promise<void> {
    try {
      for (const name of this.names) this.#stop(name, 'SIGTERM');
      const ends = this.names.map(async (name) =>
        this.ended(name, ENDS_MS).catch(() => this.kill(name)),
      );
      await Promise.all(ends);
    } finally {
      this.network.remove();
    }
  }

  #logOf(name: string): string {
    return path.join(this.folder, `${name}.log`);
  }

  /** The end of what it said, to explain a failure. */
  log(name: string): string {
    return existsSync(this.#logOf(name))
      ? readFileSync(this.#logOf(name), 'utf8').slice(-4000)
      : '';
  }

  #get(name: string): Container {
    const found = this.#containers.get(name);
    if (found === undefined) throw new Error(`there is no container ${name}`);
    return found;
  }
}

function hasEnded(process: ChildProcess | undefined): boolean {
  const { exitCode = null, signalCode = null } = process ?? {};
  return exitCode !== null || signalCode !== null;
}

/** Whether it has ended for good: whatever the file says of restarts, or whoever runs it. */
function isOver({ process, service, restarts, stopped }: Container): boolean {
  if (!hasEnded(process)) return false;
  const [policy, most = Number.POSITIVE_INFINITY] = service.restart.split(':');
  const again =
    policy === 'on-failure' ? process?.exitCode !== 0 && restarts < Number(most) : policy !== 'no';
  return stopped || !again;
}
