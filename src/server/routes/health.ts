import { access, constants, mkdir } from 'node:fs/promises';

import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';

export interface HealthOptions {
  /** Folder of the server's own records: it must be writable. */
  readonly root: string;
  /** @throws when Temporal does not answer */
  readonly ping: () => Promise<void>;
}

const Health = z.object({ status: z.literal('ok') });
const Check = z.enum(['ok', 'failed']);
const Readiness = z.object({
  status: z.enum(['ready', 'not_ready']),
  checks: z.object({ temporal: Check, store: Check }),
});

/** `/healthz`: the process answers. `/readyz`: it can take work, that is, Temporal answers and the store is writable. */
export const healthRoutes: FastifyPluginAsyncZod<HealthOptions> = async (app, { root, ping }) => {
  const schema = { tags: ['Health'], security: [] };
  app.get(
    '/healthz',
    { config: { rateLimit: false }, schema: { ...schema, response: { 200: Health } } },
    async () => ({ status: 'ok' as const }),
  );
  app.get(
    '/readyz',
    {
      config: { rateLimit: false },
      schema: { ...schema, response: { 200: Readiness, 503: Readiness } },
    },
    async (_, reply) => {
      const [temporal, store] = await Promise.all([works(ping()), works(writable(root))]);
      const ready = temporal && store;
      const word = (works: boolean) => (works ? ('ok' as const) : ('failed' as const));
      return reply.code(ready ? 200 : 503).send({
        status: ready ? 'ready' : 'not_ready',
        checks: { temporal: word(temporal), store: word(store) },
      });
    },
  );
};

async function writable(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await access(folder, constants.R_OK | constants.W_OK);
}

const works = async (check: Promise<void>): Promise<boolean> =>
  check.then(
    () => true,
    () => false,
  );
