import {
  type IncomingMessage,
  type Server,
  type ServerResponse,
  createServer,
  request,
} from 'node:http';
import type { AddressInfo } from 'node:net';

import type { Random } from '../random.js';
import { sleep } from '../lab/processes.js';

/** What the proxy does to requests while a trouble lasts. */
export type Trouble = 'conflict' | 'precondition' | 'slow-down' | 'lost-acknowledgement' | 'delay';

/** Of ten requests that a trouble concerns, how many it hits. */
const OF_TEN: Readonly<Record<Trouble, number>> = {
  conflict: 6,
  precondition: 6,
  'slow-down': 6,
  'lost-acknowledgement': 4,
  delay: 10,
};
const DELAY_MS = 3000;

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

/** Stands between the product and a real S3-compatible server, and misbehaves when it is told to. */
export class S3Proxy {
  /** Requests that were hit, by trouble. */
  readonly hits = new Map<Trouble, number>();
  #trouble: Trouble | undefined;

  private constructor(
    private readonly server: Server,
    private readonly upstream: number,
    private readonly random: Random,
  ) {
    server.on('request', (incoming: IncomingMessage, outgoing: ServerResponse) => {
      this.#serve(incoming, outgoing).catch(() => incoming.socket.destroy());
    });
  }

  /** @param upstream port of the server on the loopback */
  static async start(upstream: number, random: Random): Promise<S3Proxy> {
    const server = createServer();
    const proxy = new S3Proxy(server, upstream, random);
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    return proxy;
  }

  get address(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Begins a trouble, or ends the one that there is. */
  set(trouble: Trouble | undefined): void {
    this.#trouble = trouble;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => {
      this.server.close(resolve);
    });
  }

  async #serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    const trouble = this.#hit(incoming);
    switch (trouble) {
      case 'conflict':
        send(outgoing, failure(409, 'ConditionalRequestConflict'));
        return;
      case 'slow-down':
        send(outgoing, failure(503, 'SlowDown'));
        return;
      case 'delay':
        await sleep(DELAY_MS);
        break;
      case 'lost-acknowledgement':
        await this.#forward(incoming, body);
        incoming.socket.destroy();
        return;
      case 'precondition':
        // As when an answer was lost and the request was sent once more: the object is there, by our own hand.
        await this.#forward(incoming, body);
        break;
      case undefined:
        break;
    }
    send(outgoing, await this.#forward(incoming, body));
  }

  /** The trouble that hits this request, if one does. */
  #hit({ method, headers }: IncomingMessage): Trouble | undefined {
    const trouble = this.#trouble;
    if (trouble === undefined || this.random.int(1, 10) > OF_TEN[trouble]) return undefined;
    const conditional = method === 'PUT' && headers['if-none-match'] !== undefined;
    const concerned =
      trouble === 'slow-down' || trouble === 'delay'
        ? true
        : trouble === 'lost-acknowledgement'
          ? method === 'PUT'
          : conditional;
    if (!concerned) return undefined;
    this.hits.set(trouble, (this.hits.get(trouble) ?? 0) + 1);
    return trouble;
  }

  async #forward(incoming: IncomingMessage, body: Buffer): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const call = request(
        {
          host: '127.0.0.1',
          port: this.upstream,
          method: incoming.method,
          path: incoming.url,
          headers: incoming.headers,
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('end', () =>
            resolve({
              status: response.statusCode ?? 500,
              headers: response.headers,
              body: Buffer.concat(chunks),
            }),
          );
          response.on('error', reject);
        },
      );
      call.on('error', reject);
      call.end(body);
    });
  }
}

function failure(status: number, code: string): Answer {
  const body = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>as told</Message></Error>`;
  return { status, headers: { 'content-type': 'application/xml' }, body: Buffer.from(body) };
}

function send(outgoing: ServerResponse, { status, headers, body }: Answer): void {
  const { 'transfer-encoding': _, ...rest } = headers;
  outgoing.writeHead(status, {
    ...rest,
    ...((rest['content-length'] ?? { 'content-length': body.length }) as object),
  });
  outgoing.end(body);
}
