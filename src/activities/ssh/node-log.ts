import { appendFileSync, mkdirSync } from 'node:fs';

import { clusterFolder, logFile } from '../local/node-state.js';

/** Takes lines about one node: into its log on this machine, each with the time and the node's name. */
export function nodeLog(cluster: string, node: string): (line: string) => void {
  mkdirSync(clusterFolder(cluster), { recursive: true, mode: 0o700 });
  const file = logFile(cluster, node);
  return (line) => {
    appendFileSync(file, `${new Date().toISOString()} ${node} | ${line}\n`, { mode: 0o600 });
  };
}
