import { z } from 'zod';

import { isId } from './ids.js';

/**
 * What goes over the wire: the objects of OpenAI's API reference, field by field. Fields that have no value yet are
 * null, as there. Times are seconds since the epoch.
 */
export const wireSchemas = z.registry<{ id?: string; description?: string }>();

/** Endpoints that vLLM serves in a batch. */
export const ENDPOINTS = ['/v1/chat/completions', '/v1/completions', '/v1/embeddings'] as const;

/** How long an input or output may be kept, in seconds: 1 hour to 30 days. */
const ExpiresAfter = z.object({
  anchor: z.literal('created_at'),
  seconds: z.coerce.number().int().min(3_600).max(2_592_000),
});
export type ExpiresAfter = z.infer<typeof ExpiresAfter>;

export const FileObject = z
  .object({
    id: z.string(),
    object: z.literal('file'),
    bytes: z.int().nonnegative(),
    created_at: z.int(),
    expires_at: z.int().nullable(),
    filename: z.string(),
    purpose: z.enum(['batch', 'batch_output']),
    status: z.literal('processed'),
    status_details: z.null(),
  })
  .register(wireSchemas, { id: 'File' });
export type FileObject = z.infer<typeof FileObject>;

/** The form of an upload, but for its `file`. Form fields are text. */
export const UploadFields = z.object({
  purpose: z.literal('batch', {
    error: (issue) =>
      issue.input === undefined
        ? "Missing required parameter: 'purpose'."
        : "Invalid value for 'purpose': this server takes files with purpose 'batch' only.",
  }),
  expires_after: ExpiresAfter.optional(),
});
export type UploadFields = z.infer<typeof UploadFields>;

/** The form of an upload as the published document shows it. */
export const UploadForm = UploadFields.extend({
  file: z.file(),
}).register(wireSchemas, { id: 'CreateFileRequest' });

export const DeletedFile = z
  .object({ id: z.string(), object: z.literal('file'), deleted: z.literal(true) })
  .register(wireSchemas, { id: 'DeletedFile' });

export const BatchError = z
  .object({
    code: z.string(),
    message: z.string(),
    param: z.string().nullable(),
    line: z.int().nullable(),
  })
  .register(wireSchemas, { id: 'BatchError' });
export type BatchError = z.infer<typeof BatchError>;

export const BatchStatus = z.enum([
  'validating',
  'failed',
  'in_progress',
  'finalizing',
  'completed',
  'expired',
  'cancelling',
  'cancelled',
]);
export type BatchStatus = z.infer<typeof BatchStatus>;

const Usage = z.object({
  input_tokens: z.int(),
  input_tokens_details: z.object({ cached_tokens: z.int() }),
  output_tokens: z.int(),
  output_tokens_details: z.object({ reasoning_tokens: z.int() }),
  total_tokens: z.int(),
});

const Metadata = z.record(z.string().max(64), z.string().max(512));

export const Batch = z
  .object({
    id: z.string(),
    object: z.literal('batch'),
    endpoint: z.string(),
    model: z.string().nullable(),
    errors: z.object({ object: z.literal('list'), data: z.array(BatchError) }).nullable(),
    input_file_id: z.string(),
    completion_window: z.string(),
    status: BatchStatus,
    output_file_id: z.string().nullable(),
    error_file_id: z.string().nullable(),
    created_at: z.int(),
    in_progress_at: z.int().nullable(),
    expires_at: z.int(),
    finalizing_at: z.int().nullable(),
    completed_at: z.int().nullable(),
    failed_at: z.int().nullable(),
    expired_at: z.int().nullable(),
    cancelling_at: z.int().nullable(),
    cancelled_at: z.int().nullable(),
    request_counts: z.object({ total: z.int(), completed: z.int(), failed: z.int() }),
    usage: Usage.nullable(),
    metadata: Metadata.nullable(),
  })
  .register(wireSchemas, { id: 'Batch' });
export type Batch = z.infer<typeof Batch>;

export const CreateBatch = z
  .object({
    input_file_id: z.string().min(1).max(256),
    endpoint: z.enum(ENDPOINTS),
    completion_window: z.literal('24h'),
    metadata: Metadata.refine((pairs) => Object.keys(pairs).length <= 16, {
      error: 'expected at most 16 keys',
    }).nullish(),
    output_expires_after: ExpiresAfter.optional(),
  })
  .register(wireSchemas, { id: 'CreateBatchRequest' });
export type CreateBatch = z.infer<typeof CreateBatch>;

export const Model = z
  .object({
    id: z.string(),
    object: z.literal('model'),
    created: z.int(),
    owned_by: z.string(),
  })
  .register(wireSchemas, { id: 'Model' });
export type Model = z.infer<typeof Model>;

export const ApiErrorBody = z
  .object({
    error: z.object({
      message: z.string(),
      type: z.string(),
      param: z.string().nullable(),
      code: z.string().nullable(),
    }),
  })
  .register(wireSchemas, { id: 'Error' });
export type ApiErrorBody = z.infer<typeof ApiErrorBody>;

/** One page of a list; `last_id` is the `after` of the next. */
const page = <T extends z.ZodType>(item: T) =>
  z.object({
    object: z.literal('list'),
    data: z.array(item),
    first_id: z.string().nullable(),
    last_id: z.string().nullable(),
    has_more: z.boolean(),
  });
export const FileList = page(FileObject).register(wireSchemas, { id: 'FileList' });
export const BatchList = page(Batch).register(wireSchemas, { id: 'BatchList' });
export const ModelList = z
  .object({ object: z.literal('list'), data: z.array(Model) })
  .register(wireSchemas, { id: 'ModelList' });

const after = (kind: 'file' | 'batch') =>
  z
    .string()
    .refine((text) => isId(kind, text), { error: `expected the id of a ${kind}` })
    .optional();
const limit = (most: number, otherwise: number) =>
  z.coerce.number().int().min(1).max(most).default(otherwise);

export const FileListQuery = z.object({
  after: after('file'),
  limit: limit(10_000, 10_000),
  order: z.enum(['asc', 'desc']).default('desc'),
  purpose: z.string().optional(),
});
export const BatchListQuery = z.object({ after: after('batch'), limit: limit(100, 20) });
