import { Network, type Host as NamespaceOf } from '../../chaos/network/network.js';
import { runHere } from '../../src/hosts/command.js';
import { putFile } from '../../src/hosts/files.js';
import type { Host } from '../../src/hosts/host.js';

/** Why there can be no namespaces here; undefined where there can. */
export function whyNoNamespaces(): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  try {
    Network.create([]).remove();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/**
 * A host that is a network namespace of this machine.
 *
 * @param mounts folders of this host: where others see the path, it sees the folder
 */
export function namespaceHost(
  { name, namespace }: NamespaceOf,
  mounts: Readonly<Record<string, string>> = {},
): Host {
  const script = [
    ...Object.entries(mounts).map(([seen, folder]) => `mount --bind '${folder}' '${seen}'`),
    'exec "$@"',
  ].join(' && ');
  const enter = ['ip', 'netns', 'exec', namespace, 'sh', '-c', script, 'sh'];
  const host: Host = {
    name,
    run: async (command, options = {}) => runHere(name, [...enter, ...command], options),
    put: async (path, content, mode) => putFile(host, path, content, mode),
  };
  return host;
}
