/** The objects of a run in the store, as far as the checker reads them. */
import { createHash } from 'node:crypto';

/** `plan.json`. */
export interface PlanDocument {
  readonly token: string;
  readonly requestsSha256: string;
  readonly summary: { readonly rows: number };
  readonly ranks: readonly {
    readonly firstRow: number;
    readonly rows: number;
    readonly batches: number;
    readonly tableSha256: string;
  }[];
}

/** A batch as its plan cuts it: name `<rank>-<batch>` with padded numbers, and its rows. */
export interface PlannedBatch {
  readonly name: string;
  readonly firstRow: number;
  readonly rows: number;
}

/** `commits/<batch>.json`. */
export interface CommitDocument {
  readonly token: string;
  readonly path: string;
  readonly sha256: string;
  readonly rows: number;
  readonly completionTokens: number;
  readonly engine: string;
}

interface ResultFile {
  readonly path: string;
  readonly sha256: string;
  readonly size: number;
  readonly rows: number;
}

/** `manifest.json`. */
export interface ManifestDocument {
  readonly state: 'completed' | 'cancelled' | 'expired';
  readonly rows: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly missing: number;
  readonly completionTokens: number;
  readonly output: ResultFile;
  readonly errors: ResultFile;
}

/** One line of `output.jsonl` or `errors.jsonl`. */
export interface ResultLine {
  readonly id: string;
  readonly custom_id: string | null;
  readonly response: { readonly status_code: number; readonly body: ResponseBody } | null;
  readonly error: { readonly code: string; readonly message?: string } | null;
}

export interface ResponseBody {
  readonly choices?: readonly {
    readonly finish_reason: string | null;
    readonly text?: string;
    readonly message?: { readonly content: string | null };
  }[];
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number };
}

/** One finished row in an attempt file. */
export interface AttemptLine {
  readonly row: number;
  readonly completionTokens: number;
  readonly failed: boolean;
  readonly output: ResultLine;
}

export const sha256 = (data: Uint8Array | string): string =>
  createHash('sha256').update(data).digest('hex');

/** JSON of a whole object, or undefined when it is torn. */
export function parse(data: Uint8Array | string): object | undefined {
  try {
    const value: unknown = JSON.parse(data.toString());
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The lines of a JSONL file; a last line without its newline, or one that is no JSON, is undefined. */
export function parseLines(data: Buffer): (object | undefined)[] {
  const lines = data.toString('utf8').split('\n');
  const rest = lines.pop();
  return [...lines.map((line) => parse(line)), ...(rest === '' ? [] : [undefined])];
}

/** Name of a batch in the store. */
export const batchName = (rank: number, batch: number): string =>
  `${String(rank).padStart(4, '0')}-${String(batch).padStart(6, '0')}`;
