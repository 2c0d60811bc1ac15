import swagger from '@fastify/swagger';
import type { FastifyInstance } from 'fastify';
import {
  createJsonSchemaTransform,
  createJsonSchemaTransformObject,
} from 'fastify-type-provider-zod';

import { wireSchemas } from './schemas.js';

/** Publishes `/openapi.json`, made of the schemas that requests and answers are checked with. */
export async function publishDocument(app: FastifyInstance, version: string): Promise<void> {
  const addSchemas = createJsonSchemaTransformObject({ schemaRegistry: wireSchemas });
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Rankflow',
        description: "Batches of requests, the way of OpenAI's Batch API.",
        version,
      },
      components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
      security: [{ key: [] }],
    },
    transform: createJsonSchemaTransform({ schemaRegistry: wireSchemas }),
    transformObject: (document) => withoutUnused(addSchemas(document)),
  });
  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger());
}

interface Document {
  readonly paths?: unknown;
  readonly components?: { readonly schemas?: Readonly<Record<string, unknown>> };
}

/** Each schema is made for requests and for answers: what is named nowhere is left out. */
function withoutUnused<T extends Document>(document: T): T {
  const schemas = document.components?.schemas ?? {};
  const used = new Set<string>();
  const visit = (part: unknown): void => {
    for (const [, name = ''] of JSON.stringify(part).matchAll(
      /"#\/components\/schemas\/(\w+)"/gu,
    )) {
      if (used.has(name)) continue;
      used.add(name);
      visit(schemas[name] ?? {});
    }
  };
  visit(document.paths ?? {});
  const kept = Object.entries(schemas).filter(([name]) => used.has(name));
  return {
    ...document,
    components: { ...document.components, schemas: Object.fromEntries(kept) },
  };
}
