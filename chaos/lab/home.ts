import { randomInt } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { execa } from 'execa';

import { paths } from '../../dist/setup/paths.js';
import { signal } from './processes.js';

const CLI = path.join(paths.packageRoot, 'dist/cli/main.js');

/** Below those that the kernel gives to connections; the stack takes others when these are taken. */
const PORTS = [20_000, 29_998] as const;

/** A data folder of a campaign's own, with links to the installed parts of the real one. */
export class Home {
  /** Short: Ray's socket paths are limited to 107 bytes. */
  readonly folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'rfc-')));
  readonly python = path.join(this.folder, 'venv/bin/python');
  /** Temporary files of everything that the campaign starts. */
  readonly temporary = this.file('t');

  /** @param environment what every command and, through the stack, every process gets besides */
  constructor(readonly environment: Readonly<Record<string, string>>) {
    for (const part of ['venv', 'models', 'bin', 'setup', 'uv']) {
      const source = path.join(paths.home, part);
      if (existsSync(source)) symlinkSync(realpathSync(source), this.file(part));
    }
    // Whoever else runs a stack here could take Temporal's usual port while a killed server is away.
    const port = randomInt(...PORTS);
    mkdirSync(this.temporary);
    mkdirSync(this.file('stack'));
    writeFileSync(this.file('stack', 'ports.json'), JSON.stringify({ port, uiPort: port + 1 }));
  }

  /** A path in the folder. */
  file(...names: string[]): string {
    return path.join(this.folder, ...names);
  }

  /** A small file of the folder as JSON; undefined when it is not there. */
  json(...names: string[]): unknown {
    try {
      return JSON.parse(readFileSync(this.file(...names), 'utf8'));
    } catch {
      return undefined;
    }
  }

  /** Starts the command line as a user does. */
  start(args: readonly string[], environment: Readonly<Record<string, string>> = {}): Command {
    const child = execa(process.execPath, [CLI, ...args], {
      reject: false,
      all: true,
      env: {
        RANKFLOW_HOME: this.folder,
        TEMPORAL_ADDRESS: undefined,
        TEMPORAL_NAMESPACE: undefined,
        TEMPORAL_CONFIG_FILE: this.file('none.toml'),
        HF_HUB_OFFLINE: '1',
        TMPDIR: this.temporary,
        ...this.environment,
        ...environment,
      },
    });
    return {
      pid: child.pid,
      done: child.then(({ exitCode, stdout, all }) => ({ exitCode, stdout, all })),
    };
  }

  /**
   * Runs the command line to its end.
   *
   * @throws Error with what it said when it fails or takes longer than `seconds`
   */
  async rankflow(
    args: readonly string[],
    environment: Readonly<Record<string, string>> = {},
    seconds = 300,
  ): Promise<string> {
    const command = this.start(args, environment);
    const timer = setTimeout(() => signal(command.pid, 'SIGKILL'), seconds * 1000);
    const { exitCode, stdout, all } = await command.done;
    clearTimeout(timer);
    if (exitCode === 0) return stdout;
    throw new Error(`rankflow ${args.join(' ')} failed (${exitCode}):\n${all.slice(-2000)}`);
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A command of the product that runs. */
export interface Command {
  readonly pid: number | undefined;
  /** How it ended; the exit code is undefined when it was killed. Never rejects. */
  readonly done: Promise<{
    readonly exitCode: number | undefined;
    readonly stdout: string;
    readonly all: string;
  }>;
}
