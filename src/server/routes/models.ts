import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';

import { ApiError } from '../errors.js';
import { ApiErrorBody, Model, ModelList } from '../schemas.js';

export interface ModelsOptions {
  readonly models: Iterable<string>;
}

/** `/v1/models`: what batches can be for. Hub names have slashes, so the rest of the path is the id. */
export const modelRoutes: FastifyPluginAsyncZod<ModelsOptions> = async (app, options) => {
  const created = Math.floor(Date.now() / 1000);
  const models = [...options.models].map(
    (id): Model => ({ id, object: 'model', created, owned_by: 'rankflow' }),
  );
  app.get(
    '/models',
    { schema: { tags: ['Models'], summary: 'List models', response: { 200: ModelList } } },
    async () => ({ object: 'list' as const, data: models }),
  );
  app.get(
    '/models/*',
    {
      schema: {
        tags: ['Models'],
        summary: 'Get a model',
        params: z.object({ '*': z.string() }),
        response: { 200: Model, 404: ApiErrorBody },
      },
    },
    async ({ params }) => {
      const model = models.find(({ id }) => id === params['*']);
      if (model !== undefined) return model;
      throw new ApiError(404, `The model '${params['*']}' does not exist.`, {
        param: 'model',
        code: 'model_not_found',
      });
    },
  );
};
