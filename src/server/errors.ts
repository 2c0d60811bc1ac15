import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';

import type { ApiErrorBody } from './schemas.js';

type ErrorDetails = Partial<Omit<ApiErrorBody['error'], 'message'>>;

/** An answer that is an error, with the fields of OpenAI's error bodies. Its message goes to the client. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly body: ApiErrorBody;

  constructor(
    readonly statusCode: number,
    message: string,
    { type = 'invalid_request_error', param = null, code = null }: ErrorDetails = {},
  ) {
    super(message);
    this.body = { error: { message, type, param, code } };
  }
}

export const noSuchFile = (id: string): ApiError =>
  new ApiError(404, `No such File object: ${id}`, { param: 'id' });

export const noSuchBatch = (id: string): ApiError =>
  new ApiError(404, `No batch found with id '${id}'.`);

/** What the framework refuses before a route is asked. Its own messages may quote what was sent. */
const BY_STATUS: Readonly<Record<number, string>> = {
  400: 'The request could not be read: its body is malformed or broke off.',
  406: 'Expected a multipart/form-data request.',
  413: 'The request is too large.',
  414: 'The URL of the request is too long.',
  415: 'The content type of the request is not supported.',
};

/** The status and body that an error is answered with. */
export function answerOf(error: unknown, request: FastifyRequest): ApiError {
  if (error instanceof ApiError) return error;
  if (hasZodFastifySchemaValidationErrors(error)) {
    const [issue] = error.validation;
    const params = issue?.params as IssueParams;
    return invalid(
      issue?.instancePath ?? '',
      issue?.keyword ?? '',
      params,
      issue?.message,
      request,
    );
  }
  const status = (error as Partial<FastifyError> | null)?.statusCode ?? 500;
  if ((error as Partial<FastifyError> | null)?.code === 'FST_ERR_BAD_URL') {
    return new ApiError(400, 'The URL of the request is malformed.');
  }
  const message = BY_STATUS[status];
  if (message !== undefined) return new ApiError(status, message);
  return new ApiError(500, 'The server had an error while processing your request.', {
    type: 'server_error',
  });
}

/** Answers every error that a route or the framework throws. Only what is the server's own fault is logged. */
export function handleError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const answer = answerOf(error, request);
  if (answer.statusCode >= 500) request.log.error({ err: error }, 'request failed');
  void reply.code(answer.statusCode).send(answer.body);
}

interface IssueParams {
  readonly expected?: string;
  readonly values?: readonly unknown[];
}

/** Longest value of a request that a message repeats. */
const SHOWN_CHARACTERS = 64;

function invalid(
  path: string,
  keyword: string,
  { expected, values }: IssueParams,
  message: string | undefined,
  request: FastifyRequest,
): ApiError {
  const names = path.split('/').filter((name) => name !== '');
  const param = names.join('.');
  const value = names.reduce<unknown>(
    (inner, name) => (inner as Record<string, unknown> | null | undefined)?.[name],
    request.body ?? request.query,
  );
  if (param === '') return new ApiError(400, BY_STATUS[400] ?? '');
  const details = (code: string): ErrorDetails => ({ param, code });
  if (value === undefined) {
    const text = `Missing required parameter: '${param}'.`;
    return new ApiError(400, text, details('missing_required_parameter'));
  }
  if (values !== undefined) {
    const shown = typeof value === 'string' && value.length <= SHOWN_CHARACTERS;
    const supported = values.map((one) => `'${String(one)}'`).join(', ');
    const what = shown ? `Invalid value: '${value}'.` : `Invalid value for '${param}'.`;
    return new ApiError(
      400,
      `${what} Supported values are: ${supported}.`,
      details('invalid_value'),
    );
  }
  if (keyword === 'invalid_type') {
    const text = `Invalid type for '${param}': expected ${expected ?? 'another type'}.`;
    return new ApiError(400, text, details('invalid_type'));
  }
  return new ApiError(
    400,
    `Invalid '${param}': ${message ?? 'not valid'}.`,
    details('invalid_value'),
  );
}
