/** When the rows of a run were finished, as the files of its attempts tell: read again and again while it goes on. */
import { existsSync, openSync, closeSync, readSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';

/** Rows and completion tokens of a run in a local store; a row that a later attempt took over counts once. */
export class FinishedRows {
  #folder;
  #offsets = new Map();
  #seen = new Set();
  #tokens = 0;
  /** `{ at: seconds since the epoch, tokens: all that were finished by then }` of each look. */
  samples = [];

  constructor(store, runId) {
    this.#folder = path.join(store, 'runs', runId, 'attempts');
  }

  look() {
    for (const file of this.#files()) this.#read(file);
    this.samples.push({ at: Date.now() / 1000, tokens: this.#tokens });
  }

  /** Tokens a second between two moments, or undefined where no looks span them. */
  rate(from, to) {
    const within = this.samples.filter(({ at }) => at >= from && at <= to);
    const [first, last] = [within.at(0), within.at(-1)];
    if (first === undefined || last.at - first.at < (to - from) / 2) return undefined;
    return (last.tokens - first.tokens) / (last.at - first.at);
  }

  #files() {
    if (!existsSync(this.#folder)) return [];
    return readdirSync(this.#folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => path.join(entry.parentPath ?? entry.path, entry.name));
  }

  #read(file) {
    const offset = this.#offsets.get(file) ?? 0;
    const size = statSync(file).size - offset;
    if (size <= 0) return;
    const bytes = Buffer.alloc(size);
    const descriptor = openSync(file, 'r');
    try {
      readSync(descriptor, bytes, 0, size, offset);
    } finally {
      closeSync(descriptor);
    }
    const whole = bytes.lastIndexOf(0x0a) + 1;
    this.#offsets.set(file, offset + whole);
    for (const line of bytes.subarray(0, whole).toString().split('\n')) {
      if (line !== '') this.#count(JSON.parse(line));
    }
  }

  #count({ output, completionTokens }) {
    if (output === undefined || this.#seen.has(output.custom_id)) return;
    this.#seen.add(output.custom_id);
    this.#tokens += completionTokens;
  }
}
