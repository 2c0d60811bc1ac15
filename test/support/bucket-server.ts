import { once } from 'node:events';
import path from 'node:path';

import { execa } from 'execa';

import { paths } from '../../src/setup/paths.js';

/** A real S3 server with one bucket. */
export interface BucketServer {
  /** Address of the empty bucket. */
  readonly root: string;
  /** What its clients need in their environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Writes an object. */
  put(key: string, text: string): Promise<void>;
  close(): Promise<void>;
}

const PUT = `
import sys
from rankflow.store import open_store
open_store(sys.argv[1]).put(sys.argv[2], sys.argv[3].encode())
`;

export async function startBucketServer(
  bucket: string,
  address = '127.0.0.1',
): Promise<BucketServer> {
  const server = execa(paths.python, ['-m', 'tests.bucket_server', bucket, address], {
    cwd: path.join(paths.packageRoot, 'python-activities'),
    env: { PYTHONPATH: paths.pythonProject },
    stdin: 'pipe',
    reject: false,
  });
  const first = await Promise.race([once(server.stdout, 'data'), server]);
  if (!Array.isArray(first)) throw new Error(`the S3 server did not start: ${first.stderr}`);
  const [root, env] = [`s3://${bucket}`, JSON.parse(String(first[0])) as Record<string, string>];
  return {
    root,
    env,
    put: async (key, text) => {
      await execa(paths.python, ['-c', PUT, root, key, text], {
        env: { PYTHONPATH: paths.pythonProject, ...env },
      });
    },
    close: async () => {
      server.stdin.end();
      await server;
    },
  };
}
