import { runHere, timedOut } from './command.js';
import { putFile } from './files.js';
import { DEFAULT_TIMEOUT_MS, type CommandResult, type Host, type RunOptions } from './host.js';
import { jumpHost } from './jump.js';
import { sshProblem } from './ssh-problem.js';

/** How to reach one host with the system's OpenSSH. */
export interface SshTarget {
  /** Name that messages and logs use. */
  readonly name: string;
  /** Address, or an alias of the ssh configuration. */
  readonly host: string;
  readonly user?: string | undefined;
  readonly port?: number | undefined;
  readonly identityFile?: string | undefined;
  /** The cluster's own; default the user's. */
  readonly knownHostsFile?: string | undefined;
  /** Hosts to go through, as `ssh -J` takes them: `user@host:port`. */
  readonly jump?: readonly string[] | undefined;
  /** Instead of `~/.ssh/config`. */
  readonly configFile?: string | undefined;
}

/** A host that is up answers in well under a second; one behind a slow line in a few. */
const CONNECT_S = 10;
/** A connection over which nothing comes for 4 × 5 s is dead: the host hung or was cut off in mid-command. */
const ALIVE_INTERVAL_S = 5;
const ALIVE_COUNT = 4;
/** For connecting, and for what ends a command over there, before its ssh here is given up. */
const MARGIN_MS = (CONNECT_S + 10) * 1000;
/** Exit code of ssh itself. A command over there cannot give it: see {@link REMOTE}. */
const SSH_FAILED = 255;
/** Exit codes of `timeout`: ended, and killed. */
const TIMED_OUT = 124;
const KILLED = 137;

/**
 * Runs the command with its end on the host itself, as one whose ssh is gone would run on; `$1` is in seconds. Exit
 * code 255 is kept for ssh.
 */
const REMOTE =
  's=$1; shift; if command -v timeout >/dev/null 2>&1; then timeout -k 5 "$s" "$@"; else "$@"; fi; c=$?; ' +
  '[ "$c" -eq 255 ] && c=254; exit "$c"';

/** Arguments of ssh up to the command; the user's own `~/.ssh/config` says what these do not. */
export function sshArguments(target: SshTarget): string[] {
  const { host, user, port, identityFile, knownHostsFile, jump = [], configFile } = target;
  const options = {
    // Nobody is there to answer a question.
    BatchMode: 'yes',
    StrictHostKeyChecking: 'yes',
    ...(knownHostsFile !== undefined && {
      UserKnownHostsFile: quotedPath(knownHostsFile),
      GlobalKnownHostsFile: '/dev/null',
      UpdateHostKeys: 'no',
    }),
    ...(identityFile !== undefined && { IdentitiesOnly: 'yes' }),
    ConnectTimeout: CONNECT_S,
    ServerAliveInterval: ALIVE_INTERVAL_S,
    ServerAliveCountMax: ALIVE_COUNT,
    // A master would stay behind with its socket, and a hung one would hang all that share it.
    ControlMaster: 'no',
    ControlPath: 'none',
    ForwardAgent: 'no',
    ClearAllForwardings: 'yes',
    LogLevel: 'ERROR',
  };
  return [
    ...(configFile === undefined ? [] : ['-F', configFile]),
    '-T',
    ...Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]),
    ...(identityFile === undefined ? [] : ['-i', identityFile]),
    ...(port === undefined ? [] : ['-p', String(port)]),
    ...jumpArguments(target, jump),
    ...(user === undefined ? [] : ['-l', user]),
    '--',
    host,
  ];
}

/**
 * What `-J` does, spelt out: with `-J` itself ssh takes for the hosts on the way only what its configuration file
 * says, and none of these settings.
 */
function jumpArguments(target: SshTarget, jump: readonly string[]): string[] {
  const last = jump.at(-1);
  if (last === undefined) return [];
  const { identityFile, knownHostsFile, configFile } = target;
  const { user, host, port } = jumpHost(last);
  const through = sshArguments({
    name: last,
    ...{ host, user, port, identityFile, knownHostsFile, configFile },
    jump: jump.slice(0, -1),
  });
  // `-W` stands before the `--` that ends the options.
  const command = ['ssh', ...through.slice(0, -2), '-W', '[%h]:%p', '--', host];
  const escaped = command.map((word) =>
    word === '[%h]:%p' ? word : quote(word.replaceAll('%', '%%')),
  );
  return ['-o', `ProxyCommand=${escaped.join(' ')}`];
}

/** ssh splits this value at blanks, and takes `%` for the beginning of a token. */
const quotedPath = (file: string): string => `"${file.replaceAll('%', '%%')}"`;

/** One word for a POSIX shell: sshd hands the command to the login shell of the user. */
export const quote = (word: string): string =>
  /^[\w@%+=:,./-]+$/u.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;

/** The one text that sshd hands to the user's shell: every word of it is quoted. */
export function remoteCommand(
  command: readonly string[],
  { env = {}, timeoutMs = DEFAULT_TIMEOUT_MS }: Pick<RunOptions, 'env' | 'timeoutMs'>,
): string {
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const seconds = String(Math.max(1, Math.ceil(timeoutMs / 1000)));
  const words = [...(variables.length > 0 ? ['env', ...variables] : []), ...command];
  return ['sh', '-c', REMOTE, 'sh', seconds, ...words].map(quote).join(' ');
}

/** A host behind ssh. Each command is a connection of its own: nothing stays behind. */
export function sshHost(target: SshTarget): Host {
  const run = async (
    command: readonly string[],
    options: RunOptions = {},
  ): Promise<CommandResult> => {
    const { timeoutMs = DEFAULT_TIMEOUT_MS, env: _, ...rest } = options;
    const words = ['ssh', ...sshArguments(target), remoteCommand(command, options)];
    const started = performance.now();
    const result = await runHere(target.name, words, { ...rest, timeoutMs: timeoutMs + MARGIN_MS });
    const { exitCode, stderr } = result;
    if (exitCode === SSH_FAILED) throw sshProblem(target, stderr);
    const ended = exitCode === TIMED_OUT || exitCode === KILLED;
    // A command may give these codes by itself, such as one that the kernel killed for its memory.
    if (ended && performance.now() - started >= timeoutMs) {
      throw timedOut(target.name, command[0] ?? '', timeoutMs);
    }
    return result;
  };
  const host: Host = {
    name: target.name,
    run,
    put: async (path, content, mode) => putFile(host, path, content, mode),
  };
  return host;
}
