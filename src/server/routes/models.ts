import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';

import { ApiError } from '../errors.js';
import { ApiErrorBody, Model, ModelList } from '../schemas.js';

export interface ModelsOptions {
  readonly models: Iterable<string>;
}

/** `/v1/models`: what batches can be for. */
export const modelRoutes: FastifyPluginAsyncZod<ModelsOptions> = async (app, options) => {
  const created = Math.floor(Date.now() / 1000);
  const models = [...options.models].map((id): Model => ({
    id,
    object: 'model',
    created,
    owned_by: 'rankflow',
  }));
  app.get(
    '/models',
    { schema: { tags: ['Models'], summary: 'List models', response: { 200: ModelList } } },
    async () => ({ object: 'list' as const, data: models }),
  );
  const get = async (id: string): Promise<Model> => {
    const model = models.find((one) => one.id === id);
    if (model !== undefined) return model;
    throw new ApiError(404, `The model '${id}' does not exist.`, {
      param: 'model',
      code: 'model_not_found',
    });
  };
  app.get(
    '/models/:model',
    {
      schema: {
        tags: ['Models'],
        summary: 'Get a model',
        params: z.object({ model: z.string() }),
        response: { 200: Model, 404: ApiErrorBody },
      },
    },
    async ({ params }) => get(params.model),
  );
  // Hub names have a slash, which not every client escapes.
  app.get(
    '/models/*',
    { schema: { hide: true, params: z.object({ '*': z.string() }) } },
    async ({ params }) => get(params['*']),
  );
};
