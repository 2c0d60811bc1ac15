import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';

import { callerOf } from '../auth.js';
import type { Batches } from '../batches.js';
import { ApiErrorBody, Batch, BatchList, BatchListQuery, CreateBatch } from '../schemas.js';

export interface BatchesRoutesOptions {
  readonly batches: Batches;
}

const Params = z.object({ batch_id: z.string() });

/** `/v1/batches`: create, list, get, cancel. */
export const batchRoutes: FastifyPluginAsyncZod<BatchesRoutesOptions> = async (
  app,
  { batches },
) => {
  const tags = ['Batches'];
  app.post(
    '/batches',
    {
      schema: {
        tags,
        summary: 'Create a batch from an uploaded file',
        body: CreateBatch,
        response: { 200: Batch, 400: ApiErrorBody, 403: ApiErrorBody },
      },
    },
    async (request) => batches.create(callerOf(request).namespace, request.body),
  );
  app.get(
    '/batches',
    {
      schema: {
        tags,
        summary: 'List batches, the newest first',
        querystring: BatchListQuery,
        response: { 200: BatchList, 400: ApiErrorBody },
      },
    },
    async (request) => batches.list(callerOf(request).namespace, request.query),
  );
  app.get(
    '/batches/:batch_id',
    {
      schema: {
        tags,
        summary: 'Get a batch',
        params: Params,
        response: { 200: Batch, 404: ApiErrorBody },
      },
    },
    async (request) => batches.get(callerOf(request).namespace, request.params.batch_id),
  );
  app.post(
    '/batches/:batch_id/cancel',
    {
      schema: {
        tags,
        summary: 'Stop a batch; what is done is kept',
        params: Params,
        response: { 200: Batch, 404: ApiErrorBody, 409: ApiErrorBody },
      },
    },
    async (request) => batches.cancel(callerOf(request).namespace, request.params.batch_id),
  );
};
