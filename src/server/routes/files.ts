import { open } from 'node:fs/promises';

import type { MultipartFile } from '@fastify/multipart';
import type { FastifyRequest } from 'fastify';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';

import { callerOf } from '../auth.js';
import { ApiError, noSuchFile } from '../errors.js';
import type { FileStore, Received } from '../files.js';
import {
  ApiErrorBody,
  DeletedFile,
  FileList,
  FileListQuery,
  FileObject,
  UploadFields,
  UploadForm,
} from '../schemas.js';
import type { Spaces } from '../spaces.js';
import { tooLarge, type UploadLimits } from '../upload.js';

export interface FilesRoutesOptions {
  readonly spaces: Spaces;
  readonly limits: UploadLimits;
}

/** Bytes, for the published document; what is sent is a stream. */
const Content: z.ZodType = z.file();
const Params = z.object({ file_id: z.string() });
/** What the form around a file may add to it, in bytes. */
const FORM_BYTES = 65_536;

/** `/v1/files`: upload, list, get, content, delete. */
export const fileRoutes: FastifyPluginAsyncZod<FilesRoutesOptions> = async (
  app,
  { spaces, limits },
) => {
  const tags = ['Files'];
  const filesOf = (request: FastifyRequest): FileStore =>
    spaces.of(callerOf(request).namespace).files;

  app.post(
    '/files',
    {
      schema: {
        tags,
        summary: 'Upload a file of requests',
        consumes: ['multipart/form-data'],
        body: UploadForm,
        response: { 200: FileObject, 400: ApiErrorBody, 403: ApiErrorBody, 413: ApiErrorBody },
      },
      // A form is read as it comes, so there is no body yet that could be checked.
      validatorCompiler: () => (value: unknown) => ({ value }),
    },
    async (request) => {
      try {
        return await upload(request, filesOf(request), limits);
      } catch (error) {
        // A client that is still sending reads the answer only when it is done.
        request.raw.unpipe();
        request.raw.resume();
        throw error;
      }
    },
  );
  app.get(
    '/files',
    {
      schema: {
        tags,
        summary: 'List files',
        querystring: FileListQuery,
        response: { 200: FileList, 400: ApiErrorBody },
      },
    },
    async (request) => {
      const { purpose, ...query } = request.query;
      return filesOf(request).list(query, purpose);
    },
  );
  app.get(
    '/files/:file_id',
    {
      schema: {
        tags,
        summary: 'Get a file',
        params: Params,
        response: { 200: FileObject, 404: ApiErrorBody },
      },
    },
    async (request) => filesOf(request).get(request.params.file_id),
  );
  app.delete(
    '/files/:file_id',
    {
      schema: {
        tags,
        summary: 'Delete a file',
        params: Params,
        response: { 200: DeletedFile, 404: ApiErrorBody },
      },
    },
    async (request) => {
      const { file_id: id } = request.params;
      await filesOf(request).remove(id);
      return { id, object: 'file' as const, deleted: true as const };
    },
  );
  app.get(
    '/files/:file_id/content',
    {
      schema: {
        tags,
        summary: 'Get the content of a file',
        params: Params,
        response: {
          200: {
            description: 'The bytes of the file',
            content: { 'application/octet-stream': { schema: Content } },
          },
          404: ApiErrorBody,
        },
      },
    },
    async (request, reply) => {
      const { file_id: id } = request.params;
      const { path, file } = await filesOf(request).content(id);
      const handle = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
        throw error.code === 'ENOENT' ? noSuchFile(id) : error;
      });
      const name = encodeURIComponent(file.filename);
      return reply
        .type('application/octet-stream')
        .header('content-length', file.bytes)
        .header('content-disposition', `attachment; filename*=UTF-8''${name}`)
        .send(handle.createReadStream());
    },
  );
};

/** Takes an upload whose fields may come before or after its file, as clients differ in that. */
async function upload(
  request: FastifyRequest,
  files: FileStore,
  limits: UploadLimits,
): Promise<FileObject> {
  if (Number(request.headers['content-length'] ?? 0) > limits.bytes + FORM_BYTES) {
    throw tooLarge(limits.bytes);
  }
  const length = Number(request.headers['content-length'] ?? 0);
  await files.checkRoom(Math.max(0, length - FORM_BYTES), limits.storedBytes);
  const fields: Record<string, unknown> = {};
  let file: NamedUpload | undefined;
  try {
    for await (const part of request.parts()) {
      if (part.type === 'field') fields[part.fieldname] = part.value;
      else file = await receiveFile(part, files, limits);
    }
    const { expires_after: expiresAfter } = checkFields(fields);
    if (file === undefined) throw missing('file');
    return await files.keep(file.received, file.filename, expiresAfter);
  } catch (error) {
    if (file !== undefined) await files.discard(file.received);
    throw error;
  }
}

interface NamedUpload {
  readonly filename: string;
  readonly received: Received;
}

async function receiveFile(
  part: MultipartFile,
  files: FileStore,
  limits: UploadLimits,
): Promise<NamedUpload> {
  if (part.fieldname !== 'file') {
    throw new ApiError(400, `Unrecognized file field: '${part.fieldname}'.`);
  }
  // A part with a content type counts as a file also without a name.
  const filename = part.filename as string | undefined;
  if (filename === undefined || filename === '') {
    throw new ApiError(400, "The part 'file' has no file name.", { param: 'file' });
  }
  return { filename, received: await files.receive(part.file, limits) };
}

/** The fields of a form: nested ones are named `expires_after[seconds]`. */
function checkFields(given: Readonly<Record<string, unknown>>): UploadFields {
  const expires = {
    anchor: given['expires_after[anchor]'],
    seconds: given['expires_after[seconds]'],
  };
  const parsed = UploadFields.safeParse({
    purpose: given['purpose'],
    ...((expires.anchor !== undefined || expires.seconds !== undefined) && {
      expires_after: expires,
    }),
  });
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const param = issue?.path.join('.') ?? null;
  throw new ApiError(400, issue?.message ?? 'Invalid form.', { param });
}

const missing = (param: string): ApiError =>
  new ApiError(400, `Missing required parameter: '${param}'.`, {
    param,
    code: 'missing_required_parameter',
  });
