import { HostError, type HostErrorType } from './host.js';
import { jumpHost } from './jump.js';
import type { SshTarget } from './ssh.js';

/** What ssh says, what it means, and what helps. The first that matches. */
const MEANINGS: readonly {
  readonly said: RegExp;
  readonly type: HostErrorType;
  readonly what: (target: SshTarget) => string;
  readonly wayOut: (target: SshTarget) => string;
}[] = [
  {
    said: /REMOTE HOST IDENTIFICATION HAS CHANGED|host key .* has changed|REVOKED HOST KEY/iu,
    type: 'HostKeyRefused',
    what: ({ host }) => `${host} shows another host key than the known one`,
    wayOut: (target) =>
      `If the machine was set up anew, remove the old key (ssh-keygen -R ${knownName(target)} -f ${knownHosts(target)}) and ` +
      `add the new one after comparing its fingerprint; if it was not, somebody may be in between.`,
  },
  {
    said: /host key is known|Host key verification failed|No .* host key is known/iu,
    type: 'HostKeyRefused',
    what: ({ host }) => `the host key of ${host} is not known`,
    wayOut: (target) =>
      `Compare its fingerprint and add it: ${onTheWay(target)}ssh-keyscan${target.port === undefined ? '' : ` -p ${target.port}`} ` +
      `${target.host} >> ${knownHosts(target)}`,
  },
  {
    said: /Permission denied|Too many authentication failures|no such identity|UNPROTECTED PRIVATE KEY|Load key/iu,
    type: 'HostAccessDenied',
    what: ({ user, host }) => `${user === undefined ? '' : `${user}@`}${host} refuses the key`,
    wayOut: ({ identityFile }) =>
      `Add the public key to ~/.ssh/authorized_keys of that user (ssh-copy-id` +
      `${identityFile === undefined ? '' : ` -i ${identityFile}`}), check the user name, and that the key needs no passphrase or is in an agent.`,
  },
  {
    said: /Could not resolve hostname/iu,
    type: 'HostUnreachable',
    what: ({ host }) => `the name ${host} cannot be resolved`,
    wayOut: () => 'Correct the name in the cluster file, or give its address.',
  },
  {
    said: /Bad configuration option|no argument after keyword|percent_expand|Bad owner or permissions/iu,
    type: 'HostRefused',
    what: () => 'ssh does not accept its settings',
    wayOut: () => 'Correct what ssh names.',
  },
];

const knownHosts = ({ knownHostsFile }: SshTarget): string =>
  knownHostsFile ?? '~/.ssh/known_hosts';
const knownName = ({ host, port }: SshTarget): string =>
  port === undefined || port === 22 ? host : `'[${host}]:${port}'`;

/** `ssh-keyscan` itself knows no hosts to go through: the last of them runs it. */
function onTheWay({ jump = [] }: SshTarget): string {
  const last = jump.at(-1);
  if (last === undefined) return '';
  const { user, host, port } = jumpHost(last);
  const words = [
    ...(jump.length > 1 ? ['-J', jump.slice(0, -1).join(',')] : []),
    ...(port === undefined ? [] : ['-p', String(port)]),
    user === undefined ? host : `${user}@${host}`,
  ];
  return `ssh ${words.join(' ')} `;
}

/** The host that ssh speaks of: one to go through is not the target, and is reached through those before it. */
function spokenOf(target: SshTarget, stderr: string): SshTarget {
  const { jump = [] } = target;
  if (isNamed(target.host, stderr)) return target;
  const at = jump.findIndex((text) => isNamed(jumpHost(text).host, stderr));
  if (at === -1) return target;
  const { user, host, port } = jumpHost(jump[at] ?? '');
  return { ...target, user, host, port, jump: jump.slice(0, at) };
}

/** Whether a text has a host's name or address, and not as a part of another. */
function isNamed(host: string, text: string): boolean {
  const escaped = host.replaceAll(/[.[\]]/gu, String.raw`\$&`);
  return new RegExp(String.raw`(?<![\w.:-])${escaped}(?![\w-]|[.:]\w)`, 'iu').test(text);
}

/** Lines of what ssh says that an error shows. */
const SHOWN_LINES = 3;

/** The error for what ssh itself says when it ends with 255. Anything not known: the host is not there. */
export function sshProblem(asked: SshTarget, stderr: string): HostError {
  const target = spokenOf(asked, stderr);
  const meaning = MEANINGS.find(({ said }) => said.test(stderr));
  const said = stderr
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !/^@+$|^@ .*@$|^(?:ssh-keygen|remove with)/u.test(line))
    .slice(-SHOWN_LINES)
    .join('; ');
  const quoted = said === '' ? '' : ` (${said})`;
  if (meaning !== undefined) {
    const { type, what, wayOut } = meaning;
    return new HostError(type, target.name, `${what(target)}${quoted}`, wayOut(target));
  }
  const { host, port = 22, jump = [] } = target;
  const through = jump.length === 0 ? '' : ` through ${jump.join(', ')}`;
  return new HostError(
    'HostUnreachable',
    target.name,
    `${host} does not answer on port ${port}${through}${quoted}`,
    'Check that the machine is up, its address and port, and the firewall in between.',
  );
}
