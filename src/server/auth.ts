import type { FastifyInstance } from 'fastify';

import { ApiError } from './errors.js';
import type { KeyStore, Principal } from './keys.js';

declare module 'fastify' {
  interface FastifyRequest {
    /** Whose key the request carries; null without a good one. */
    principal: Principal | null;
  }
}

const NO_KEY =
  "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer " +
  'auth (i.e. Authorization: Bearer YOUR_KEY).';

/**
 * Finds out who asks, before anything else: limits count by key. Refuses nothing yet, so that requests without a
 * good key are counted too.
 */
export function identify(app: FastifyInstance, keys: KeyStore): void {
  app.decorateRequest('principal', null);
  app.addHook('onRequest', async (request) => {
    const key = bearer(request.headers.authorization);
    request.principal = (key === undefined ? undefined : await keys.verify(key)) ?? null;
  });
}

/** Refuses requests without a good key, before their body is read. */
export function requireKey(app: FastifyInstance): void {
  app.addHook('preParsing', async (request, reply) => {
    if (request.principal !== null) return;
    void reply.header('www-authenticate', 'Bearer');
    throw bearer(request.headers.authorization) === undefined
      ? new ApiError(401, NO_KEY)
      : new ApiError(401, 'Incorrect API key provided.', { code: 'invalid_api_key' });
  });
}

/** The caller of a route behind {@link requireKey}. */
export function callerOf({ principal }: { readonly principal: Principal | null }): Principal {
  if (principal === null) throw new ApiError(401, NO_KEY);
  return principal;
}

const bearer = (header: string | undefined): string | undefined =>
  /^Bearer\s+(\S+)\s*$/iu.exec(header ?? '')?.[1];
