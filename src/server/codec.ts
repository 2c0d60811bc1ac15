import { randomBytes } from 'node:crypto';

import type { Payload, PayloadCodec } from '@temporalio/common';
import fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify';
import { z } from 'zod';

import type { KeyStore } from './keys.js';

export interface CodecOptions {
  readonly codec: PayloadCodec;
  /** Who may ask; undefined for everybody, which is for the loopback only. */
  readonly keys?: KeyStore;
  /** Origins of the web interfaces whose pages may ask, e.g. `http://127.0.0.1:8233`. */
  readonly origins: readonly string[];
  /** Names in the `Host` header that are this server's, without their port, where nobody has to show a key. */
  readonly hosts: readonly string[];
  readonly logger: FastifyBaseLogger;
}

/** Payloads as Temporal's web interface and command line send them: protocol buffers as JSON. */
const Payloads = z.object({
  payloads: z.array(
    z.object({
      metadata: z.record(z.string(), z.base64()).nullish(),
      data: z.base64().nullish(),
    }),
  ),
});
type JsonPayload = z.infer<typeof Payloads>['payloads'][number];

/** A page of the web interface shows a whole history: 50 MB at most, a third more in base64. */
const BODY_BYTES = 70 * 1024 * 1024;
const HEADERS = 'authorization,content-type,x-namespace';
/** Seconds for which a browser remembers the answer to its question. */
const REMEMBERED = '600';

/**
 * Temporal's codec server: `POST /decode` and `POST /encode`, for its web interface and command line. It logs who asked,
 * and never what.
 */
export function buildCodecApp(options: CodecOptions): FastifyInstance {
  const { codec, keys } = options;
  const app = fastify({
    loggerInstance: options.logger,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_BYTES,
    genReqId: () => `req_${randomBytes(12).toString('hex')}`,
  });
  app.addHook('onRequest', async (request, reply) => {
    const { origin } = request.headers;
    // Not only for the browser to look at: a page of somebody else must not get so far as to ask.
    if (origin !== undefined && !options.origins.includes(origin)) {
      return refuse(reply, 403, `Pages of ${origin} may not ask: see --origin.`);
    }
    if (origin !== undefined) allow(reply, origin);
    if (request.method === 'OPTIONS') return reply.code(204).send();
    if (keys === undefined) {
      // A page whose name was made to lead here (DNS rebinding) is of the same origin for its browser.
      if (options.hosts.includes(hostOf(request))) return undefined;
      return refuse(reply, 403, 'This name is not one of this server.');
    }
    const key = /^Bearer\s+(\S+)\s*$/iu.exec(request.headers.authorization ?? '')?.[1];
    const caller = key === undefined ? undefined : await keys.verify(key);
    if (caller !== undefined) {
      request.log = request.log.child({ key: caller.keyId });
      return undefined;
    }
    void reply.header('www-authenticate', 'Bearer');
    return refuse(reply, 401, 'A good key is needed: Authorization: Bearer KEY.');
  });
  const route = (name: 'encode' | 'decode') => {
    app.post(`/${name}`, async (request, reply) => {
      const { data } = Payloads.safeParse(request.body);
      if (data === undefined) return refuse(reply, 400, 'The body is not {"payloads": [...]}.');
      try {
        const done = await codec[name](data.payloads.map(fromJson));
        request.log.info({ payloads: done.length }, name);
        return await reply.send({ payloads: done.map(toJson) });
      } catch (error) {
        const { name: type, message } = error as Error;
        if (type === 'KeyMismatch') return refuse(reply, 400, message);
        throw error;
      }
    });
  };
  route('encode');
  route('decode');
  app.setErrorHandler((error: Error & { statusCode?: number }, request, reply) => {
    const status = error.statusCode ?? 500;
    if (status >= 500) request.log.error({ type: error.name }, 'request failed');
    return refuse(
      reply,
      status,
      status >= 500 ? 'The server failed.' : 'The request cannot be read.',
    );
  });
  app.get('/healthz', async () => ({ status: 'ok' }));
  return app;
}

function allow(reply: FastifyReply, origin: string): void {
  void reply.headers({
    'access-control-allow-origin': origin,
    'access-control-allow-methods': 'POST',
    'access-control-allow-headers': HEADERS,
    'access-control-allow-credentials': 'true',
    'access-control-max-age': REMEMBERED,
    vary: 'origin',
  });
}

/** Temporal's web interface shows `message`. */
const refuse = (reply: FastifyReply, status: number, message: string): FastifyReply =>
  reply.code(status).send({ message });

const hostOf = ({ headers }: FastifyRequest): string =>
  (headers.host ?? '').replace(/:\d+$/u, '').toLowerCase();

const fromJson = ({ metadata, data }: JsonPayload): Payload => ({
  metadata: Object.fromEntries(
    Object.entries(metadata ?? {}).map(([name, value]) => [name, Buffer.from(value, 'base64')]),
  ),
  data: Buffer.from(data ?? '', 'base64'),
});

const toJson = ({ metadata, data }: Payload) => ({
  metadata: Object.fromEntries(
    Object.entries(metadata ?? {}).map(([name, value]) => [name, base64(value)]),
  ),
  data: base64(data ?? new Uint8Array()),
});

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
