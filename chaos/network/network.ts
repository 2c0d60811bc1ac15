import { execFileSync } from 'node:child_process';

import { NotPossible } from '../faults/fault.js';
import { isAlive } from '../lab/processes.js';

/** A host of its own on this machine: a network namespace with one address. */
export interface Host {
  readonly name: string;
  readonly namespace: string;
  readonly address: string;
  /** Its end of the cable on the side of this machine. */
  readonly cable: string;
}

const ip = (...args: string[]): string =>
  execFileSync('ip', args, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });

/** Names begin with the process that made them: `rc123-head`, `rc123b`, `rc123v0`. */
const OWNER = /^rc(\d+)[-bv]/u;

/** Names of what a process that is gone has left behind: it was killed before it could remove it. */
function leftBy(listed: string): string[] {
  const names = (JSON.parse(listed || '[]') as { name?: string; ifname?: string }[]).map(
    ({ name, ifname }) => name ?? ifname ?? '',
  );
  return names.filter((name) => {
    const owner = OWNER.exec(name)?.[1];
    return owner !== undefined && !isAlive(Number(owner));
  });
}

/** Hosts on one bridge, which can be cut off from one another. This machine is on it too. */
export class Network {
  readonly hosts: Host[] = [];
  readonly #id = `rc${process.pid}`;
  readonly #subnet: string;

  private constructor() {
    // Of the private addresses a corner that nobody is likely to use.
    this.#subnet = `10.231.${process.pid % 250}`;
  }

  /** @throws NotPossible where namespaces may not be made */
  static create(names: readonly string[]): Network {
    const network = new Network();
    try {
      removeAll([
        ...leftBy(ip('-json', 'netns', 'list')).map((name) => ['netns', 'delete', name]),
        ...leftBy(ip('-json', 'link', 'show')).map((name) => ['link', 'delete', name]),
      ]);
      network.#build(names);
    } catch (error) {
      network.remove();
      throw new NotPossible(`network namespaces may not be made: ${(error as Error).message}`);
    }
    return network;
  }

  #build(names: readonly string[]): void {
    const bridge = `${this.#id}b`;
    ip('link', 'add', bridge, 'type', 'bridge');
    ip('address', 'add', `${this.#subnet}.1/24`, 'dev', bridge);
    ip('link', 'set', bridge, 'up');
    for (const [index, name] of names.entries()) {
      const host: Host = {
        name,
        namespace: `${this.#id}-${name}`,
        address: `${this.#subnet}.${10 + index}`,
        cable: `${this.#id}v${index}`,
      };
      this.hosts.push(host);
      const { namespace, address, cable } = host;
      ip('netns', 'add', namespace);
      ip('link', 'add', cable, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace);
      ip('link', 'set', cable, 'master', bridge, 'up');
      ip('-n', namespace, 'link', 'set', 'lo', 'up');
      ip('-n', namespace, 'address', 'add', `${address}/24`, 'dev', 'eth0');
      ip('-n', namespace, 'link', 'set', 'eth0', 'up');
    }
  }

  host(name: string): Host {
    const found = this.hosts.find((host) => host.name === name);
    if (found === undefined) throw new Error(`there is no host ${name}`);
    return found;
  }

  /** A command that runs on a host. */
  command({ namespace }: Host, command: string, args: readonly string[]): [string, string[]] {
    return ['ip', ['netns', 'exec', namespace, command, ...args]];
  }

  /** Nothing that a host sends to an address arrives any more. */
  cut({ namespace }: Host, address: string): void {
    ip('-n', namespace, 'route', 'add', 'blackhole', `${address}/32`);
  }

  join({ namespace }: Host, address: string): void {
    ip('-n', namespace, 'route', 'delete', 'blackhole', `${address}/32`);
  }

  /** Pulls the cable of a host out, so that nothing reaches it or leaves it. */
  unplug({ cable }: Host): void {
    ip('link', 'set', cable, 'down');
  }

  plug({ cable }: Host): void {
    ip('link', 'set', cable, 'up');
  }

  /** Removes all of it, as far as it was made. */
  remove(): void {
    removeAll([
      ...this.hosts.map(({ namespace }) => ['netns', 'delete', namespace]),
      ...this.hosts.map(({ cable }) => ['link', 'delete', cable]),
      ['link', 'delete', `${this.#id}b`],
    ]);
  }
}

function removeAll(steps: readonly (readonly string[])[]): void {
  for (const step of steps) {
    try {
      ip(...step);
    } catch {
      // It was not made, or went with its namespace.
    }
  }
}
