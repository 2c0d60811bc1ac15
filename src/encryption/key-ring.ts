import { statSync } from 'node:fs';

import { type EncryptionKey, readKeys } from './key-file.js';

/** How long a changed file may go unnoticed, in ms. A key that is not known is looked for at once. */
const LOOK_MS = 5_000;

/**
 * The keys of a file: the first encrypts, all decrypt. A file that changes is read again, so that keys are rotated
 * under processes that run; one that is broken meanwhile leaves the keys as they were.
 */
export class KeyRing {
  #keys: readonly EncryptionKey[];
  #stamp: string;
  #looked = Date.now();

  /** @throws ClientError `Usage` when the file cannot be read or is malformed */
  constructor(readonly file: string) {
    this.#stamp = stampOf(file);
    this.#keys = readKeys(file);
  }

  /** Ids of the keys, that of the first one first. */
  get ids(): readonly string[] {
    return this.#keys.map(({ id }) => id);
  }

  /** The key to encrypt with. */
  get first(): EncryptionKey {
    if (Date.now() - this.#looked > LOOK_MS) this.#look();
    const [first] = this.#keys;
    if (first === undefined) throw new Error('a file of keys has at least one');
    return first;
  }

  find(id: string): Buffer | undefined {
    return this.#find(id) ?? (this.#look() ? this.#find(id) : undefined);
  }

  #find(id: string): Buffer | undefined {
    return this.#keys.find((one) => one.id === id)?.key;
  }

  /** @returns whether there may be other keys now */
  #look(): boolean {
    this.#looked = Date.now();
    try {
      const stamp = stampOf(this.file);
      if (stamp === this.#stamp) return false;
      this.#keys = readKeys(this.file);
      this.#stamp = stamp;
      return true;
    } catch {
      return false;
    }
  }
}

function stampOf(file: string): string {
  const found = statSync(file, { throwIfNoEntry: false });
  return `${found?.ino}/${found?.size}/${found?.mtimeMs}`;
}
