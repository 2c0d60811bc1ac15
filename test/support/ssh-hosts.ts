import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { Network, type Host } from '../../chaos/network/network.js';
import { eventually } from './harness.js';

const SSHD = '/usr/sbin/sshd';

/** Why there can be no hosts of their own here; undefined where there can. */
export function whyNoHosts(): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  if (!existsSync(SSHD)) return `there is no ${SSHD}: install openssh-server`;
  try {
    Network.create([]).remove();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Hosts with own addresses and an own sshd each, on one bridge with this machine. */
export class SshHosts {
  /** Keys, known hosts and sshd settings; short, as everything here. */
  readonly folder = mkdtempSync(path.join(tmpdir(), 'rfs-'));
  readonly identityFile = path.join(this.folder, 'id');
  readonly knownHosts = path.join(this.folder, 'known_hosts');
  readonly network: Network;
  readonly #servers = new Map<string, ChildProcess>();
  readonly #mounts = new Map<string, Readonly<Record<string, string>>>();

  constructor(names: readonly string[]) {
    this.#makeKey(this.identityFile);
    // OpenSSH's server insists on its folder for privilege separation.
    mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
    this.network = Network.create(names);
    this.trust(names);
  }

  addressOf = (name: string): string => this.network.host(name).address;

  #makeKey(file: string): void {
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', file]);
  }

  /** Writes the known hosts; those in `changed` with a key that they do not have. */
  trust(names: readonly string[], changed: readonly string[] = []): void {
    const lines = names.map((name) => {
      const key = path.join(this.folder, `${name}.key`);
      if (!existsSync(key)) this.#makeKey(key);
      const known = changed.includes(name) ? this.identityFile : key;
      const [type, text] = execFileSync('ssh-keygen', ['-y', '-f', known], {
        encoding: 'utf8',
      }).split(' ');
      return `${this.addressOf(name)} ${type} ${text?.trim()}\n`;
    });
    writeFileSync(this.knownHosts, lines.join(''));
  }

  /** Where others see a path, a host that starts later sees a folder of its own. */
  mount(name: string, mounts: Readonly<Record<string, string>>): void {
    this.#mounts.set(name, mounts);
  }

  async start(names: readonly string[]): Promise<void> {
    for (const name of names) this.#startServer(this.network.host(name));
    for (const name of names) await eventually(async () => answers(this.addressOf(name)));
  }

  #startServer(host: Host): void {
    const config = path.join(this.folder, `${host.name}.conf`);
    writeFileSync(
      config,
      [
        `ListenAddress ${host.address}`,
        `HostKey ${path.join(this.folder, `${host.name}.key`)}`,
        `AuthorizedKeysFile ${this.identityFile}.pub`,
        'PidFile none',
        'UsePAM no',
        'StrictModes no',
        'PermitRootLogin prohibit-password',
        'MaxStartups 100',
      ].join('\n'),
    );
    const mounts = this.#mounts.get(host.name) ?? {};
    const [command, args] = this.network.command(host, 'sh', [
      '-c',
      // What runs in a network namespace has mounts of its own.
      [
        ...Object.entries(mounts).map(([seen, own]) => `mount --bind '${own}' '${seen}' || exit`),
        `exec ${SSHD} -D -e -f '${config}'`,
      ].join('\n'),
    ]);
    this.#servers.set(host.name, spawn(command, args, { stdio: 'ignore' }));
  }

  /** Ends the sshd of a host, so that nobody can log in there any more. */
  stop(name: string): void {
    this.#servers.get(name)?.kill('SIGKILL');
    this.#servers.delete(name);
  }

  remove(): void {
    for (const name of [...this.#servers.keys()]) this.stop(name);
    this.network.remove();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

async function answers(host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port: 22, timeout: 1000 });
    const end = (found: boolean): void => {
      socket.destroy();
      resolve(found);
    };
    socket.on('connect', () => end(true));
    socket.on('error', () => end(false));
    socket.on('timeout', () => end(false));
  });
}
