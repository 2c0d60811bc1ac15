import { randomBytes } from 'node:crypto';

import { execa, type Subprocess } from 'execa';
import getPort from 'get-port';

import { poll } from '../lab/processes.js';
import type { Random } from '../random.js';
import type { Entry, StoreReader } from '../store/reader.js';
import { S3Proxy } from './proxy.js';

const BUCKET = 'chaos';

/** A real S3-compatible server (moto) in a process of its own, and the proxy before it. */
export class S3Server {
  readonly secretKey = randomBytes(20).toString('hex');
  readonly store = `s3://${BUCKET}/store`;
  #busy: Promise<void> = Promise.resolve();

  private constructor(
    private readonly server: Subprocess,
    private readonly port: number,
    readonly proxy: S3Proxy,
  ) {}

  /** @throws Error when it does not come up within 60 s */
  static async start(python: string, random: Random): Promise<S3Server> {
    const port = await getPort({ host: '127.0.0.1' });
    const server = execa(python, ['-m', 'moto.server', '-H', '127.0.0.1', '-p', String(port)], {
      reject: false,
      stdio: 'ignore',
    });
    const made = await poll(() => makeBucket(port), 60, 500);
    if (made === undefined) {
      server.kill('SIGKILL');
      throw new Error('the S3 server did not come up');
    }
    return new S3Server(server, port, await S3Proxy.start(port, random));
  }

  /** One run at a time: a trouble is for the run that it was meant for. */
  async exclusively(work: () => Promise<void>): Promise<void> {
    const turn = this.#busy.then(work);
    this.#busy = turn.catch(() => {});
    return turn;
  }

  get pid(): number {
    return this.server.pid ?? 0;
  }

  /** What processes need to reach it through the proxy. */
  get environment(): Record<string, string> {
    return {
      AWS_ENDPOINT: this.proxy.address,
      AWS_ALLOW_HTTP: 'true',
      AWS_REGION: 'us-east-1',
      AWS_ACCESS_KEY_ID: 'chaos',
      AWS_SECRET_ACCESS_KEY: this.secretKey,
      AWS_VIRTUAL_HOSTED_STYLE_REQUEST: 'false',
    };
  }

  /** Reads past the proxy: the checker is in no trouble. */
  reader(): BucketReader {
    return new BucketReader(`http://127.0.0.1:${this.port}/${BUCKET}`, 'store');
  }

  async close(): Promise<void> {
    await this.proxy.close();
    this.server.kill('SIGKILL');
  }
}

async function makeBucket(port: number): Promise<true | undefined> {
  try {
    const { ok } = await fetch(`http://127.0.0.1:${port}/${BUCKET}`, { method: 'PUT' });
    return ok ? true : undefined;
  } catch {
    return undefined;
  }
}

/** Any credentials: the test server checks no signature, but hands objects to nobody without one. */
const SIGNED = {
  authorization:
    'AWS4-HMAC-SHA256 Credential=checker/20000101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0',
};

/** A bucket over plain HTTP, as a test server allows. */
export class BucketReader implements StoreReader {
  /** @param prefix folder of the store in the bucket */
  constructor(
    private readonly bucket: string,
    private readonly prefix: string,
  ) {}

  async list(prefix: string): Promise<Entry[]> {
    const found: Entry[] = [];
    let token: string | undefined;
    do {
      const query = new URLSearchParams({
        'list-type': '2',
        prefix: `${this.prefix}/${prefix}/`,
        ...(token !== undefined && { 'continuation-token': token }),
      });
      const response = await fetch(`${this.bucket}?${String(query)}`, { headers: SIGNED });
      const xml = await response.text();
      for (const [, part = ''] of xml.matchAll(/<Contents>(.*?)<\/Contents>/gsu)) {
        const key = /<Key>(.*?)<\/Key>/u.exec(part)?.[1] ?? '';
        const size = Number(/<Size>(\d+)<\/Size>/u.exec(part)?.[1]);
        found.push({ key: key.slice(this.prefix.length + 1), size });
      }
      token = /<NextContinuationToken>(.*?)<\/NextContinuationToken>/u.exec(xml)?.[1];
    } while (token !== undefined);
    return found;
  }

  async read(key: string): Promise<Buffer | undefined> {
    const response = await fetch(`${this.bucket}/${this.prefix}/${key}`, { headers: SIGNED });
    const data = Buffer.from(await response.arrayBuffer());
    return response.ok ? data : undefined;
  }

  async readFrom(key: string, offset: number): Promise<Buffer> {
    return (await this.read(key))?.subarray(offset) ?? Buffer.alloc(0);
  }
}
