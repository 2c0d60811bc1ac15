import { runHere } from './command.js';
import { putFile } from './files.js';
import type { Host } from './host.js';

/** This machine. */
export function localHost(name = 'localhost'): Host {
  const host: Host = {
    name,
    run: async (command, options = {}) => runHere(name, command, options),
    put: async (path, content, mode) => putFile(host, path, content, mode),
  };
  return host;
}
