import type { ClusterSpec } from '../contracts/cluster.js';

/** What a command about a cluster is about: its name, and what its file says when a file was named. */
export interface ClusterTarget {
  readonly name: string;
  readonly spec?: ClusterSpec;
}

/**
 * Reads `FILE-or-NAME`.
 *
 * @throws ClientError `Usage` with all problems of the file
 */
export async function clusterTarget(text: string): Promise<ClusterTarget> {
  const { isClusterFile, readClusterFile } = await import('../clusters/cluster-file.js');
  if (!isClusterFile(text)) return { name: text };
  const spec = readClusterFile(text);
  return { name: spec.name, spec };
}
