/** What a command did, whatever its exit code. */
export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** Text for standard input; for secrets, too. */
  readonly input?: string | Uint8Array;
  /** Milliseconds after which the command is ended; default 60 s. */
  readonly timeoutMs?: number;
  /** Variables beside those that the host has. Others on the host can read them: no secrets. */
  readonly env?: Readonly<Record<string, string>>;
  /** Takes each line of both outputs as it comes. */
  readonly onLine?: (line: string) => void;
  /** Ends the command when aborted. */
  readonly signal?: AbortSignal;
}

/** One machine on which commands are run: this one, or one behind ssh. */
export interface Host {
  readonly name: string;
  /**
   * Runs one program with an argument array, never a shell string; output lines go to `onLine` as they come. A
   * program that is not there ends with 127, as in a shell.
   *
   * @throws HostError when the host does not run it, or not to its end in time
   */
  run(command: readonly string[], options?: RunOptions): Promise<CommandResult>;
  /**
   * Writes a file with a mode (0600 for secrets), by way of stdin: never in argv. Readers see the old content or
   * the new one.
   *
   * @throws HostError like `run`, or `HostRefused` when the file cannot be written
   */
  put(path: string, content: string | Uint8Array, mode: number): Promise<void>;
}

/** Errors of the closed set that are about a host. */
export type HostErrorType =
  'HostUnreachable' | 'HostKeyRefused' | 'HostAccessDenied' | 'HostTimedOut' | 'HostRefused';

/** What is wrong with one host, with the way out for this very one. */
export class HostError extends Error {
  override readonly name = 'HostError';

  constructor(
    readonly type: HostErrorType,
    readonly host: string,
    message: string,
    readonly wayOut: string,
    options?: ErrorOptions,
  ) {
    super(`${host}: ${message}`, options);
  }
}

/** A step on a host ends in seconds; what takes longer says so. */
export const DEFAULT_TIMEOUT_MS = 60_000;
/** Exit code of `sh` for a program that is not there. */
export const NOT_FOUND = 127;
