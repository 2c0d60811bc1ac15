import { chownSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import path from 'node:path';

import { type Host, Network } from '../../../chaos/network/network.js';
import { Box } from '../containers/box.js';
import type { Image } from '../containers/images.js';
import type { Project, Service } from './project.js';

/** A machine that is busy with something else takes minutes for a Ray node. */
const STARTS_MS = 600_000;
const ENDS_MS = 30_000;
const SHM_BYTES = 64 * 2 ** 20;

/** One container of a service. */
interface Container {
  readonly service: Service;
  readonly host: Host;
  readonly box: Box;
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
      const { project } = this;
      const pair = (source = '', target = ''): readonly [string, string] => [source, target];
      const mounts = [
        ...image.mounts,
        ...service.secrets.map((one) => pair(project.secrets[one.source]?.file, one.target)),
        ...service.configs.map((one) => pair(project.configs[one.source]?.file, one.target)),
        ...service.volumes.map((one) => pair(this.#volume(one, image), one.target)),
        ...(image.mountsLast ?? []),
      ];
      const command = [
        ...(service.entrypoint ?? image.entrypoint ?? []),
        ...(service.command ?? (service.entrypoint ? [] : (image.command ?? []))),
      ];
      const own = Object.entries(service.environment).flatMap(([key, value]) =>
        value === null ? [] : [[key, value]],
      );
      const environment = {
        HOME: '/home/rankflow',
        ...image.environment,
        ...(Object.fromEntries(own) as Record<string, string>),
      };
      const box = new Box({
        ...{ name, command, environment, hosts, mounts, init: true },
        ...{ namespace: host.namespace, user: image.user, folder: image.folder },
        shmBytes: service.shm_size ?? SHM_BYTES,
        root: path.join(this.folder, 'roots', name),
        log: path.join(this.folder, `${name}.log`),
        again: (exitCode, restarts) => startsAgain(service, exitCode, restarts),
      });
      this.#containers.set(name, { service, host, box });
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
        else await this.#get(other).box.completed(STARTS_MS);
      }),
    );
    this.start(name);
  }

  /** Starts one, or starts it again; it then starts again by itself as the file says. */
  start(name: string): void {
    this.#get(name).box.start();
  }

  /** Waits until the health check of the file says that it is well; at once when it has none. */
  async healthy(name: string): Promise<void> {
    const { service, box } = this.#get(name);
    const test = service.healthcheck?.test;
    if (test === undefined) return;
    const [kind, ...words] = test;
    const command = kind === 'CMD-SHELL' ? ['sh', '-c', words[0] ?? ''] : words;
    await box.until('healthy', STARTS_MS, async () => {
      const { failed, stderr } = await box.exec(command, 20_000);
      return failed ? stderr : undefined;
    });
  }

  /** Waits until one that has ended is started again by itself. */
  async startedAgain(name: string): Promise<void> {
    return this.#get(name).box.startedAgain();
  }

  /** Waits until it has ended, and returns its exit code; of one that starts again, until this start of it has. */
  async ended(name: string, withinMs: number): Promise<number | null> {
    return this.#get(name).box.ended(withinMs);
  }

  /** A command in a container that runs, as `docker compose exec`: as its user, in its folder. Never throws. */
  exec(name: string, command: readonly string[], timeout = 1_500_000) {
    return this.#get(name).box.exec(command, timeout);
  }

  /** Ends one with everything in it, without a word; it stays down. */
  kill(name: string): void {
    this.#get(name).box.stop('SIGKILL');
  }

  /** Ends all as `docker compose down`: with time for those that want it. */
  async down(): Promise<void> {
    try {
      await Promise.all(this.names.map(async (name) => this.#get(name).box.down(ENDS_MS)));
    } finally {
      this.network.remove();
    }
  }

  /** The end of what it said, to explain a failure. */
  log(name: string): string {
    return this.#get(name).box.said;
  }

  #get(name: string): Container {
    const found = this.#containers.get(name);
    if (found === undefined) throw new Error(`there is no container ${name}`);
    return found;
  }
}

/** What the file says of restarts. */
function startsAgain({ restart }: Service, exitCode: number | null, restarts: number): boolean {
  const [policy, most = Number.POSITIVE_INFINITY] = restart.split(':');
  return policy === 'on-failure' ? exitCode !== 0 && restarts < Number(most) : policy !== 'no';
}
