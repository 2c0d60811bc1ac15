import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { stripVTControlCharacters } from 'node:util';

/** What a script printed (both streams) and the status of its last command that failed, or 0. */
export interface Ended {
  readonly status: number;
  readonly output: string;
}

/** Time for what a shell has printed to be read when it has ended. */
const LAST_WORDS_MS = 500;

/** A terminal: one shell, whose variables and background processes outlive the scripts that it is given. */
export class Session {
  private readonly shell: ChildProcess;
  private output = '';
  private heard: () => void = () => {};
  private scripts = 0;
  private ended = false;

  constructor(
    cwd: string,
    environment: NodeJS.ProcessEnv,
    private readonly folder: string,
  ) {
    this.shell = spawn('bash', ['--noprofile', '--norc'], {
      cwd,
      env: environment,
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    this.shell.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.output += text;
      this.heard();
    });
    this.shell.on('exit', () => {
      // Background processes may keep its output open: what it printed is there soon, but its end may never be.
      setTimeout(() => {
        this.ended = true;
        this.heard();
      }, LAST_WORDS_MS);
    });
    this.send('exec 2>&1');
    // As a reader who looks at each command's outcome; a condition of `until` or `if` is none.
    this.send("trap 'failed=$?' ERR");
  }

  /**
   * Runs a script as if it was typed.
   *
   * @throws Error with what it has printed when it takes too long, or ends the shell
   */
  async run(script: string, timeoutMs: number): Promise<Ended> {
    this.scripts += 1;
    const file = path.join(this.folder, `script-${this.scripts}.sh`);
    writeFileSync(file, `${script}\n`);
    const end = `== end of ${this.scripts}:`;
    this.output = '';
    this.send(`failed=0; source '${file}' </dev/null; echo; echo "${end} $failed"`);
    const status = await this.statusAfter(end, timeoutMs);
    const output = this.output.slice(0, this.output.indexOf(`\n${end}`));
    return { status, output: stripVTControlCharacters(output) };
  }

  get pid(): number | undefined {
    return this.shell.pid;
  }

  /** Ends the shell, but none of the background processes. */
  close(): void {
    this.shell.kill('SIGKILL');
  }

  private send(line: string): void {
    this.shell.stdin?.write(`${line}\n`);
  }

  private async statusAfter(end: string, timeoutMs: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const fail = (what: string): void => {
        reject(new Error(`${what}:\n${this.output}`));
      };
      const timer = setTimeout(fail, timeoutMs, `no end within ${timeoutMs / 1000} s`);
      this.heard = () => {
        const status = new RegExp(`^${end} (\\d+)$`, 'mu').exec(this.output)?.[1];
        if (status === undefined && !this.ended) return;
        clearTimeout(timer);
        if (status === undefined) fail('the shell has ended');
        else resolve(Number(status));
      };
      this.heard();
    });
  }
}
