import { createReadStream } from 'node:fs';

import type { BatchError } from './schemas.js';

export interface InspectOptions {
  readonly endpoint: string;
  /** Ids of the models that are served. */
  readonly models: ReadonlySet<string>;
  readonly maxRows: number;
}

/** What a batch is for, or why it cannot be. */
export type Inspection =
  | { readonly model: string; readonly rows: number }
  | { readonly problems: readonly BatchError[]; readonly rows: number };

/** Problems that are told; a file in another format would have one on each line. */
const TOLD_PROBLEMS = 100;
/** Longest line that is looked at; the planner reads none longer either. */
const LINE_BYTES = 16 * 1024 * 1024;

/**
 * Checks the envelope of every request of a batch: whether each line is a request to the endpoint of the batch,
 * under an id of its own, all for one model that is served. That is what a batch fails for as a whole; what a body
 * says is checked later, row by row, by vLLM's own classes. Codes, messages and parameters are OpenAI's. No message
 * has anything of a request in it but the name of a model.
 */
export async function inspectBatch(file: string, options: InspectOptions): Promise<Inspection> {
  const check = new EnvelopeCheck(options);
  let line = 0;
  for await (const text of linesOf(file)) {
    line += 1;
    check.line(line, text);
    if (check.rows > options.maxRows) break;
  }
  return check.result();
}

class EnvelopeCheck {
  rows = 0;
  private readonly seen = new Set<string>();
  private readonly problems: BatchError[] = [];
  private total = 0;
  private model: string | undefined;

  constructor(private readonly options: InspectOptions) {}

  line(line: number, text: string | undefined): void {
    if (text === undefined) {
      this.rows += 1;
      this.add(line, 'line_too_long', `This line is longer than ${LINE_BYTES} bytes.`);
      return;
    }
    if (text.trim() === '') return;
    this.rows += 1;
    const request = parse(text);
    if (request === undefined) {
      this.add(line, 'invalid_json_line', 'This line is not parseable as valid JSON.');
      return;
    }
    this.customId(line, request['custom_id']);
    this.target(line, request);
    this.body(line, request['body']);
  }

  result(): Inspection {
    const { rows, total, problems, model } = this;
    if (rows > this.options.maxRows) {
      const message = `The batch has more than ${this.options.maxRows} requests.`;
      return { rows, problems: [problem(null, 'too_many_tasks', message)] };
    }
    if (rows === 0) {
      return { rows, problems: [problem(null, 'empty_file', 'The input file has no requests.')] };
    }
    if (total > problems.length) {
      const more = `${total - problems.length} more problems are not listed.`;
      return { rows, problems: [...problems, problem(null, 'too_many_errors', more)] };
    }
    // Without a problem, every line has named one and the same model.
    return model === undefined || total > 0 ? { rows, problems } : { rows, model };
  }

  private customId(line: number, id: unknown): void {
    if (id === undefined || id === null) this.missing(line, 'custom_id');
    else if (typeof id !== 'string' || id === '') {
      this.add(line, 'invalid_type', 'custom_id is not a text.', 'custom_id');
    } else if (this.seen.has(id)) {
      const message = 'The custom_id of this request is a duplicate of another request.';
      this.add(line, 'duplicate_custom_id', message, 'custom_id');
    } else this.seen.add(id);
  }

  private target(line: number, { method, url }: Record<string, unknown>): void {
    if (method === undefined) this.missing(line, 'method');
    else if (method !== 'POST') {
      this.add(line, 'invalid_method', "The method of a request has to be 'POST'.", 'method');
    }
    if (url === undefined) this.missing(line, 'url');
    else if (url !== this.options.endpoint) {
      const message = 'The URL provided for this request does not match the batch endpoint.';
      this.add(line, 'invalid_url', message, 'url');
    }
  }

  private body(line: number, body: unknown): void {
    if (body === undefined) this.missing(line, 'body');
    else if (!isObject(body)) this.add(line, 'invalid_type', 'body is not an object.', 'body');
    else {
      this.servedModel(line, body['model']);
      if (body['stream'] === true) {
        const message = 'Streaming is not supported in the Batch API.';
        this.add(line, 'streaming_unsupported', message, 'body.stream');
      }
    }
  }

  private servedModel(line: number, model: unknown): void {
    const { models } = this.options;
    if (model === undefined || model === null) {
      this.add(line, 'invalid_request', 'Model parameter is required.', 'body.model');
    } else if (typeof model !== 'string' || !models.has(model)) {
      const known = [...models].map((id) => `'${id}'`).join(', ');
      const message = `The provided model is not served here. Served are: ${known}.`;
      this.add(line, 'model_not_found', message, 'body.model');
    } else if (this.model !== undefined && model !== this.model) {
      const message = `The provided model is not '${this.model}', as in the requests before: a batch is for one.`;
      this.add(line, 'mismatched_model', message, 'body.model');
    } else this.model = model;
  }

  private missing(line: number, param: string): void {
    this.add(line, 'missing_required_parameter', `Missing required parameter: '${param}'.`, param);
  }

  private add(line: number, code: string, message: string, param: string | null = null): void {
    this.total += 1;
    if (this.problems.length < TOLD_PROBLEMS) {
      this.problems.push(problem(line, code, message, param));
    }
  }
}

const problem = (
  line: number | null,
  code: string,
  message: string,
  param: string | null = null,
): BatchError => ({ code, message, param, line });

/** The object on a line. What the parser says of a line that is none would quote it. */
function parse(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * Lines of a file, split at line feeds alone: Node's readline also splits at separators that JSON allows in texts.
 * Undefined for a line that is too long to be held.
 */
async function* linesOf(file: string): AsyncGenerator<string | undefined> {
  let pieces: Buffer[] = [];
  let held = 0;
  let first = true;
  const take = (): string | undefined => {
    const text = held > LINE_BYTES ? undefined : Buffer.concat(pieces).toString('utf8');
    pieces = [];
    held = 0;
    const line = first ? text?.replace(/^\uFEFF/u, '') : text;
    first = false;
    return line;
  };
  const hold = (piece: Buffer): void => {
    held += piece.length;
    if (held <= LINE_BYTES) pieces.push(piece);
    else pieces = [];
  };
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
    let at = 0;
    for (let end = chunk.indexOf(0x0a); end !== -1; end = chunk.indexOf(0x0a, at)) {
      hold(chunk.subarray(at, end));
      yield take();
      at = end + 1;
    }
    hold(chunk.subarray(at));
  }
  if (held > 0) yield take();
}
