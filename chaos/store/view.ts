import type { Violation } from '../checker/violation.js';
import {
  type AttemptLine,
  type CommitDocument,
  type ManifestDocument,
  type PlanDocument,
  type PlannedBatch,
  parse,
  parseLines,
  sha256,
} from './documents.js';
import { readPlan } from './plan.js';
import type { Entry, StoreReader } from './reader.js';

/** A finished row as one attempt file holds it. */
export interface Line {
  readonly row: number;
  /** Completion tokens. */
  readonly tokens: number;
  /** Whether this attempt generated it; else it took it over from an earlier one. */
  readonly own: boolean;
}

/** One attempt file, as far as it was read. */
export interface Attempt {
  readonly batch: string;
  readonly token: string;
  readonly lines: Line[];
  /** A last line without its end, or nothing. */
  rest: Buffer;
}

/** A commit as it was first seen. */
export interface SeenCommit {
  readonly document: CommitDocument;
  readonly text: string;
  readonly seenAt: number;
}

/** What the store held at the moment before a fault. */
export interface Snapshot {
  readonly at: number;
  /** Number of the fault. */
  readonly fault: number;
  /** Rows that some attempt file held. */
  readonly finished: ReadonlySet<number>;
  /** Tokens of the attempts that had started. */
  readonly attempts: ReadonlySet<string>;
  /** Rows that had been given to an engine and were not finished. */
  readonly decoding: readonly number[];
  /** Of these, the ones on the engines that the fault hits. */
  lost: readonly number[];
  /** Of these, the ones that may be generated twice for it. */
  atRisk: readonly number[];
  /** Batches that had started and were not committed. */
  readonly open: readonly string[];
}

/**
 * One run in its store, followed while it goes on. Reads only. What a reader must never see (half an object, a
 * commit before its rows) is a violation at the moment it is seen.
 */
export class RunView {
  readonly attempts = new Map<string, Attempt>();
  readonly commits = new Map<string, SeenCommit>();
  readonly violations: Violation[] = [];
  readonly snapshots: Snapshot[] = [];
  /** When each row was first seen finished, ms since the epoch. */
  readonly finishedAt = new Map<number, number>();
  /** When the plan, the first attempt and the manifest were first seen, ms since the epoch. */
  readonly seenAt: { plan?: number; attempt?: number; manifest?: number } = {};
  plan: PlanDocument | undefined;
  batches: readonly PlannedBatch[] = [];
  manifest: ManifestDocument | undefined;
  readonly #folder: string;
  readonly #read = new Map<string, number>();
  #polling: Promise<void> = Promise.resolve();

  constructor(
    readonly runId: string,
    readonly reader: StoreReader,
  ) {
    this.#folder = `runs/${runId}`;
  }

  /**
   * Reads what is new. Calls wait for one another.
   *
   * @throws Error when the store cannot be read
   */
  async poll(): Promise<void> {
    const before = this.#polling.catch(() => {});
    this.#polling = before.then(async () => {
      await this.#readPlan();
      // Commits first: an attempt that is committed has been there before.
      await this.#readCommits();
      await this.#readAttempts();
      await this.#readManifest();
    });
    return this.#polling;
  }

  /** Remembers what is there, for the check of what is generated again after a fault. */
  async snapshot(fault: number): Promise<Snapshot> {
    await this.poll();
    const open = [...new Set([...this.attempts.values()].map(({ batch }) => batch))].filter(
      (batch) => !this.commits.has(batch),
    );
    const decoding = this.batches
      .filter(({ name }) => open.includes(name))
      .flatMap(({ firstRow, rows }) => Array.from({ length: rows }, (_, index) => firstRow + index))
      .filter((row) => !this.finishedAt.has(row));
    const snapshot: Snapshot = {
      at: Date.now(),
      fault,
      finished: new Set(this.finishedAt.keys()),
      attempts: new Set([...this.attempts.values()].map(({ token }) => token)),
      decoding,
      lost: decoding,
      atRisk: decoding,
      open,
    };
    this.snapshots.push(snapshot);
    return snapshot;
  }

  /** Rows of a batch of the plan. */
  rowsOf(batch: string): number {
    return this.batches.find(({ name }) => name === batch)?.rows ?? Number.POSITIVE_INFINITY;
  }

  key(...names: string[]): string {
    return [this.#folder, ...names].join('/');
  }

  /** Completion tokens of each row in the answer that counts: that of its commit, else the first one seen. */
  tokensOfRows(): Map<number, number> {
    const tokens = new Map<number, number>();
    for (const attempt of this.attempts.values()) {
      for (const { row, tokens: count } of attempt.lines) {
        const counts = this.commits.get(attempt.batch)?.document.token === attempt.token;
        if (counts || !tokens.has(row)) tokens.set(row, count);
      }
    }
    return tokens;
  }

  async #readPlan(): Promise<void> {
    if (this.plan !== undefined) return;
    const found = await readPlan(this.reader, this.#folder);
    if (found === undefined) return;
    for (const [code, message] of found.problems) this.#violation(code, message);
    if (found.plan === undefined) return;
    this.batches = found.batches;
    this.plan = found.plan;
    this.seenAt.plan = Date.now();
  }

  async #readCommits(): Promise<void> {
    for (const { key } of await this.reader.list(this.key('commits'))) {
      const name = key.split('/').at(-1) ?? '';
      const batch = name.replace(/\.json$/u, '');
      if (name.startsWith('.tmp-') || this.commits.has(batch)) continue;
      const data = await this.reader.read(key);
      if (data === undefined) continue;
      const document = parse(data) as CommitDocument | undefined;
      if (document === undefined) {
        this.#violation('torn', `the commit of ${batch} is no JSON`);
        continue;
      }
      this.commits.set(batch, { document, text: data.toString(), seenAt: Date.now() });
      const attempt = await this.readAttempt(document.path);
      if (sha256(attempt) !== document.sha256) {
        this.#violation('half-visible', `${batch} is committed and its attempt is not whole`);
      }
    }
  }

  /** Content of an attempt: one file, or numbered segments in a bucket. */
  async readAttempt(key: string): Promise<Buffer> {
    const whole = await this.reader.read(key);
    if (whole !== undefined) return whole;
    const segments = (await this.reader.list(key)).map((entry) => entry.key).toSorted();
    const parts = await Promise.all(segments.map(async (segment) => this.reader.read(segment)));
    return Buffer.concat(parts.filter((part) => part !== undefined));
  }

  async #readAttempts(): Promise<void> {
    const entries = await this.reader.list(this.key('attempts'));
    for (const entry of entries.toSorted((a, b) => (a.key < b.key ? -1 : 1))) {
      await this.#readAttemptEntry(entry);
    }
  }

  async #readAttemptEntry({ key, size }: Entry): Promise<void> {
    const parts = key.slice(this.key('attempts').length + 1).split('/');
    const [batch = '', file = ''] = parts;
    if (parts.some((part) => part.startsWith('.tmp-'))) return;
    const token = file.replace(/\.jsonl$/u, '');
    const id = `${batch}/${token}`;
    const attempt = this.attempts.get(id) ?? { batch, token, lines: [], rest: Buffer.alloc(0) };
    this.attempts.set(id, attempt);
    this.seenAt.attempt ??= Date.now();
    const known = this.#read.get(key) ?? 0;
    if (size <= known) return;
    const data = await this.reader.readFrom(key, known);
    this.#read.set(key, known + data.length);
    const text = Buffer.concat([attempt.rest, data]);
    const end = text.lastIndexOf('\n') + 1;
    attempt.rest = text.subarray(end);
    const lines = text.subarray(0, end).toString('utf8').split('\n').slice(0, -1);
    for (const line of lines) this.#addLine(attempt, line);
  }

  #addLine(attempt: Attempt, text: string): void {
    const line: Partial<AttemptLine> | undefined = parse(text);
    if (line?.row === undefined || line.output === undefined) {
      // Only what a kill tears may be torn: the very end of a file, never a line before another one.
      this.#violation('torn', `an attempt of ${attempt.batch} has a torn line in the middle`);
      return;
    }
    const { row, completionTokens: tokens = 0, output } = line;
    attempt.lines.push({ row, tokens, own: output.id.includes(`${attempt.token}-`) });
    if (!this.finishedAt.has(row)) this.finishedAt.set(row, Date.now());
  }

  async #readManifest(): Promise<void> {
    if (this.manifest !== undefined) return;
    // In this order: what is published must not be there before the manifest.
    const published = await this.reader.read(this.key('output.jsonl'));
    const data = await this.reader.read(this.key('manifest.json'));
    if (data === undefined) {
      if (published !== undefined) {
        this.#violation('half-visible', 'output.jsonl is visible before the manifest');
      }
      return;
    }
    const manifest = parse(data) as ManifestDocument | undefined;
    if (manifest === undefined) {
      this.#violation('torn', 'manifest.json is no JSON');
      return;
    }
    this.manifest = manifest;
    this.seenAt.manifest = Date.now();
    for (const { path, sha256: hash, size, rows } of [manifest.output, manifest.errors]) {
      const file = await this.reader.read(path);
      const whole = file !== undefined && file.length === size && sha256(file) === hash;
      const lines = file === undefined ? [] : parseLines(file);
      if (!whole || lines.length !== rows || lines.includes(undefined)) {
        this.#violation('half-visible', `the manifest is visible and ${path} is not whole`);
      }
    }
  }

  #violation(code: string, message: string): void {
    if (this.violations.some((known) => known.message === message)) return;
    this.violations.push({ invariant: 'I2', code, message, run: this.runId });
  }
}
