import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { execa } from 'execa';

import { paths } from '../../src/setup/paths.js';

/** A data folder of its own with the installed parts of the real one, so that nothing heavy is installed. */
export class DataFolder {
  /** Short: Ray's socket paths are limited to 107 bytes. */
  readonly home = mkdtempSync(path.join(tmpdir(), 'rf-'));

  /** @param environment variables of every process that the command line starts */
  constructor(private readonly environment: Readonly<Record<string, string>> = {}) {
    for (const part of ['venv', 'models', 'bin', 'setup']) {
      const source = path.join(paths.home, part);
      if (existsSync(source)) symlinkSync(source, path.join(this.home, part));
    }
  }

  /** A path in the folder. */
  file(name: string): string {
    return path.join(this.home, name);
  }

  /**
   * Runs the command line as a user does; never throws.
   *
   * @param packageRoot of another Rankflow than this one
   */
  rankflow(args: readonly string[], timeoutMs = 600_000, packageRoot: string = paths.packageRoot) {
    return execa(process.execPath, [path.join(packageRoot, 'dist/cli/main.js'), ...args], {
      reject: false,
      timeout: timeoutMs,
      env: {
        RANKFLOW_HOME: this.home,
        TEMPORAL_ADDRESS: undefined,
        TEMPORAL_NAMESPACE: undefined,
        TEMPORAL_CONFIG_FILE: this.file('none.toml'),
        HF_HUB_OFFLINE: '1',
        ...this.environment,
      },
    });
  }

  /** Ends what the tests started and removes the folder, but not what it links to. */
  async remove(fleet: string): Promise<void> {
    await this.rankflow(['fleet', 'stop', fleet], 120_000);
    await this.rankflow(['cluster', 'down'], 120_000);
    await this.rankflow(['down'], 120_000);
    rmSync(this.home, { recursive: true, force: true });
  }
}

/** One line of a result or error file in OpenAI's Batch format. */
export interface ResultLine {
  readonly custom_id: string;
  readonly response: {
    readonly status_code: number;
    readonly body: {
      readonly choices: readonly {
        readonly finish_reason: string;
        readonly message: { readonly content: string };
      }[];
      readonly usage: { readonly completion_tokens: number };
    };
  } | null;
  readonly error: { readonly code: string } | null;
}

export function readLines(file: string): unknown[] {
  return parseLines(readFileSync(file, 'utf8'));
}

export function parseLines(text: string): unknown[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as unknown);
}
