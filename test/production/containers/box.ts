import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';

/** Between the end of a container and its next start. */
const RESTART_MS = 1000;
const script = fileURLToPath(new URL('container.sh', import.meta.url));

export interface BoxOptions {
  readonly name: string;
  /** Network namespace. */
  readonly namespace: string;
  /** An empty folder for its root, whose last part is its host name. */
  readonly root: string;
  readonly shmBytes: number;
  /** File with the names of the others. */
  readonly hosts: string;
  readonly user: readonly [number, number];
  /** Its working folder. */
  readonly folder: string;
  /** Files and folders of this machine, and where they are in it. */
  readonly mounts: readonly (readonly [string, string])[];
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** File to which its output is added. */
  readonly log: string;
  /** Whether its first process is one that passes signals on and collects what others leave behind. */
  readonly init: boolean;
  /** One whose process ids it shares. */
  readonly processesOf?: Box;
  /** Whether it is to start again after it has ended so, having started again as often. */
  readonly again: (exitCode: number | null, restarts: number) => boolean;
}

/** A container of sorts: processes of this machine in namespaces of their own; see `container.sh`. */
export class Box {
  #process: ChildProcess | undefined;
  /** How often it was started again by itself. */
  #restarts = 0;
  /** Ended by whoever runs it, so it stays down. */
  #stopped = false;

  constructor(private readonly options: BoxOptions) {
    mkdirSync(options.root, { recursive: true });
  }

  get name(): string {
    return this.options.name;
  }

  /** Starts it, or starts it again; it then starts again by itself as its options say. */
  start(): void {
    this.#restarts = 0;
    this.#stopped = false;
    this.#launch();
  }

  #launch(): void {
    const { root, shmBytes, hosts, user, folder, mounts, command, environment } = this.options;
    const { namespace, init, processesOf, log } = this.options;
    const file = openSync(log, 'a');
    const child = spawn(
      'ip',
      [
        ...['netns', 'exec', namespace, script, init ? 'init' : 'plain'],
        ...[String(processesOf?.firstProcess ?? 0), root, String(shmBytes), hosts],
        ...[...user.map(String), folder],
        ...mounts.map(([source, target]) => `${source}=${target}`),
        ...['--', ...command],
      ],
      { detached: true, stdio: ['ignore', file, file], env: environment },
    );
    closeSync(file);
    this.#process = child;
    child.once('exit', () => {
      setTimeout(() => {
        if (this.#process !== child || this.isOver) return;
        this.#restarts += 1;
        this.#launch();
      }, RESTART_MS);
    });
  }

  /** Whether it has ended for good: whatever its options say of restarts, or whoever runs it. */
  get isOver(): boolean {
    if (!this.hasEnded) return false;
    return this.#stopped || !this.options.again(this.#process?.exitCode ?? null, this.#restarts);
  }

  get hasEnded(): boolean {
    return hasEnded(this.#process);
  }

  get restarts(): number {
    return this.#restarts;
  }

  /** Waits until one that has ended is started again by itself. */
  async startedAgain(): Promise<void> {
    while (this.hasEnded) {
      if (this.isOver) throw new Error(`${this.name} has ended:\n${this.said}`);
      await sleep(200);
    }
  }

  /** Waits until it has ended, and returns its exit code; of one that starts again, until this start of it has. */
  async ended(withinMs: number): Promise<number | null> {
    const child = this.#process;
    const deadline = Date.now() + withinMs;
    for (;;) {
      if (hasEnded(child)) return child?.exitCode ?? null;
      if (Date.now() > deadline) throw new Error(`${this.name} has not ended:\n${this.said}`);
      await sleep(200);
    }
  }

  /** Waits until it has ended well, however often it starts again before. */
  async completed(withinMs: number): Promise<void> {
    while ((await this.ended(withinMs)) !== 0) await this.startedAgain();
  }

  /** Repeats a check until it holds; ends with an error when it does not in time, or when this one has ended for good. */
  async until(what: string, withinMs: number, check: () => Promise<string | undefined>) {
    const deadline = Date.now() + withinMs;
    for (;;) {
      const wrong = await check();
      if (wrong === undefined) return;
      if (Date.now() > deadline || this.isOver) {
        throw new Error(`${this.name} is not ${what}: ${wrong}\n${this.said}`);
      }
      await sleep(2000);
    }
  }

  /** A command in it, as its user, in its folder. Never throws. */
  exec(command: readonly string[], timeout = 1_500_000) {
    const { environment, folder, user } = this.options;
    const [uid, gid] = user;
    return execa(
      'nsenter',
      [
        ...['-t', String(this.firstProcess), '-m', '-p', '-n', '-i', '-r'],
        ...['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', '--'],
        ...['sh', '-c', `cd '${folder}' && exec "$@"`, 'sh', ...command],
      ],
      { reject: false, timeout, cwd: '/', env: environment, extendEnv: false },
    );
  }

  /** Its first process, by its number on this machine; 0 when there is none. */
  get firstProcess(): number {
    const { pid } = this.#process ?? {};
    if (pid === undefined) return 0;
    try {
      return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0]);
    } catch {
      return 0;
    }
  }

  /** Signals its first process; it stays down. */
  stop(signal: NodeJS.Signals): void {
    this.#stopped = true;
    const pid = this.firstProcess;
    if (pid > 1) process.kill(pid, signal);
  }

  /** Ends it: with time for it, then without a word. */
  async down(withinMs: number): Promise<void> {
    this.stop('SIGTERM');
    await this.ended(withinMs).catch(() => this.stop('SIGKILL'));
  }

  /** The end of what it said, to explain a failure. */
  get said(): string {
    const { log } = this.options;
    return existsSync(log) ? readFileSync(log, 'utf8').slice(-4000) : '';
  }
}

function hasEnded(process: ChildProcess | undefined): boolean {
  const { exitCode = null, signalCode = null } = process ?? {};
  return exitCode !== null || signalCode !== null;
}
