import { randomBytes } from 'node:crypto';

import multipart from '@fastify/multipart';
import rateLimit from '@fastify/rate-limit';
import fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type FastifySchema,
  LogController,
} from 'fastify';
import { serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod';

import { identify, requireKey } from './auth.js';
import type { Batches } from './batches.js';
import { ApiError, handleError } from './errors.js';
import type { KeyStore } from './keys.js';
import { publishDocument } from './openapi.js';
import { batchRoutes } from './routes/batches.js';
import { fileRoutes } from './routes/files.js';
import { healthRoutes } from './routes/health.js';
import { modelRoutes } from './routes/models.js';
import { ApiErrorBody } from './schemas.js';
import type { Spaces } from './spaces.js';
import type { UploadLimits } from './upload.js';

export interface AppOptions {
  readonly keys: KeyStore;
  readonly spaces: Spaces;
  readonly batches: Batches;
  readonly models: Iterable<string>;
  readonly limits: UploadLimits;
  /** Requests of one namespace, or of one address without a key, in a minute. */
  readonly requestsPerMinute: number;
  /** @throws when Temporal does not answer */
  readonly ping: () => Promise<void>;
  readonly logger: FastifyBaseLogger;
  readonly version: string;
}

/** Bytes of a JSON body: the largest one is a batch with 16 pairs of metadata. */
const BODY_BYTES = 65_536;
/** A large file on a slow line takes its time; an hour is far more, and ends what never ends. */
const REQUEST_TIMEOUT_MS = 3_600_000;

/** What any route behind a key may answer, beside its own. */
const EVERYWHERE = { 401: ApiErrorBody, 429: ApiErrorBody, 500: ApiErrorBody };
const responsesOf = ({ response }: FastifySchema): object => response ?? {};

/** A request is one line of the log: its method, path, key and status, but no body, header or query. */
class RequestLog extends LogController {
  override incomingRequest(): void {}

  override requestCompleted(_: unknown, request: FastifyRequest, reply: FastifyReply): void {
    const { method, principal, log } = request;
    const what = { method, path: pathOf(request), key: principal?.keyId };
    const milliseconds = Math.round(reply.elapsedTime);
    log.info({ ...what, status: reply.statusCode, milliseconds }, 'answered');
  }
}

/** The server without a port: routes, limits, errors and the published document. */
export async function buildApp(options: AppOptions): Promise<FastifyInstance> {
  const app = fastify({
    loggerInstance: options.logger,
    logController: new RequestLog(),
    bodyLimit: BODY_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    frameworkErrors: (error, request, reply) => {
      // No hook has seen it: there is no route for what is no URL.
      void reply.header('x-request-id', request.id);
      handleError(error, request, reply);
    },
    genReqId: () => `req_${randomBytes(12).toString('hex')}`,
  });
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  app.setErrorHandler(handleError);
  acceptNoBody(app);
  app.addHook('onRequest', async (request, reply) => {
    void reply.header('x-request-id', request.id);
  });
  identify(app, options.keys);
  await app.register(rateLimit, {
    max: options.requestsPerMinute,
    timeWindow: '1 minute',
    keyGenerator: ({ principal, ip }: FastifyRequest) => principal?.namespace ?? ip,
    errorResponseBuilder: (_, { after }) =>
      new ApiError(429, `Rate limit reached. Please try again in ${after}.`, {
        type: 'requests',
        code: 'rate_limit_exceeded',
      }),
  });
  // Counted as well: whoever looks for routes finds a limit.
  app.setNotFoundHandler({ preHandler: app.rateLimit() }, (request, reply) => {
    const error = new ApiError(404, `Invalid URL (${request.method} ${pathOf(request)})`);
    void reply.code(error.statusCode).send(error.body);
  });
  await publishDocument(app, options.version);
  await app.register(healthRoutes, { root: options.spaces.root, ping: options.ping });
  await app.register(
    async (v1) => {
      requireKey(v1);
      v1.addHook('onRoute', (route) => {
        const { schema } = route;
        if (schema)
          route.schema = { ...schema, response: { ...EVERYWHERE, ...responsesOf(schema) } };
      });
      // One byte more than is allowed: the meter of the upload says what is wrong, not the parser.
      const fileSize = options.limits.bytes + 1;
      await v1.register(multipart, {
        limits: { fileSize, files: 1, fields: 16, fieldSize: 1_024 },
        throwFileSizeLimit: false,
      });
      await v1.register(fileRoutes, { spaces: options.spaces, limits: options.limits });
      await v1.register(batchRoutes, { batches: options.batches });
      await v1.register(modelRoutes, { models: options.models });
    },
    { prefix: '/v1' },
  );
  return app;
}

/** The Python client names a content type for requests without a body, too, such as a cancellation. */
function acceptNoBody(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null);
    else void parse(request, String(body), done);
  });
}

const pathOf = ({ url }: Pick<FastifyRequest, 'url'>): string => url.split('?', 1)[0] ?? '';
