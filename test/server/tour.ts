/** What a client met on its way through the API: the same of the Python and of the Node client. */
export interface Tour {
  readonly models: readonly string[];
  readonly uploaded: Record<string, unknown> & { readonly id: string };
  readonly created: BatchSeen;
  /** Every status that was seen, in order. */
  readonly statuses: readonly string[];
  readonly completed: BatchSeen;
  readonly output: readonly Line[];
  readonly errors: readonly Line[];
  /** Ids of all batches and of the files of each purpose, read in pages of one. */
  readonly batches: readonly string[];
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly cancelling: BatchSeen;
  readonly cancelled: BatchSeen;
  readonly partial: readonly Line[];
  readonly never: readonly Line[];
  readonly failed: BatchSeen;
  readonly missing: BatchSeen;
  readonly deleted: Record<string, unknown>;
  /** Class and status of what was thrown, with the fields of the error. */
  readonly refused: Readonly<Record<string, Refusal>>;
}

export interface Refusal {
  readonly class: string;
  readonly status: number;
  readonly code: string | null;
  readonly param: string | null;
  readonly type: string | null;
}

export interface BatchSeen extends Record<string, unknown> {
  readonly id: string;
  readonly status: string;
  readonly output_file_id: string | null;
  readonly error_file_id: string | null;
  readonly request_counts: { total: number; completed: number; failed: number };
}

export interface Line {
  readonly custom_id: string;
  readonly response: { readonly status_code: number } | null;
  readonly error: { readonly code: string } | null;
}

/** The files that a tour takes along, and who it is. */
export interface TourInput {
  readonly baseURL: string;
  readonly key: string;
  readonly otherKey: string;
  /** Good requests, and one with a prompt that is too long. */
  readonly small: string;
  /** Enough requests to be cancelled on the way. */
  readonly large: string;
  /** Requests with mistakes on lines 2 and 3. */
  readonly bad: string;
  /** Larger than the server takes. */
  readonly huge: string;
}
