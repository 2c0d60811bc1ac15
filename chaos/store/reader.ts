import { closeSync, openSync, readFileSync, readSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';

/** An object of a store. */
export interface Entry {
  readonly key: string;
  readonly size: number;
}

/** Read-only access to a store, without the product's own code: a checker must not share its mistakes. */
export interface StoreReader {
  /** All objects below a folder, at any depth. */
  list(prefix: string): Promise<Entry[]>;
  /** Undefined when there is none. */
  read(key: string): Promise<Buffer | undefined>;
  /** The bytes from `offset` on; empty when there are none. */
  readFrom(key: string, offset: number): Promise<Buffer>;
}

/** A store in a folder. */
export class FolderReader implements StoreReader {
  constructor(readonly root: string) {}

  async list(prefix: string): Promise<Entry[]> {
    const found: Entry[] = [];
    const visit = (folder: string): void => {
      for (const entry of entriesOf(path.join(this.root, folder))) {
        const key = `${folder}/${entry.name}`;
        if (entry.isDirectory()) visit(key);
        else {
          const size = sizeOf(path.join(this.root, key));
          if (size !== undefined) found.push({ key, size });
        }
      }
    };
    visit(prefix);
    return found;
  }

  async read(key: string): Promise<Buffer | undefined> {
    try {
      return readFileSync(path.join(this.root, key));
    } catch {
      return undefined;
    }
  }

  async readFrom(key: string, offset: number): Promise<Buffer> {
    let descriptor: number | undefined;
    try {
      const file = path.join(this.root, key);
      descriptor = openSync(file, 'r');
      const data = Buffer.alloc(Math.max(0, statSync(file).size - offset));
      const length = readSync(descriptor, data, 0, data.length, offset);
      return data.subarray(0, length);
    } catch {
      return Buffer.alloc(0);
    } finally {
      if (descriptor !== undefined) closeSync(descriptor);
    }
  }
}

function entriesOf(folder: string) {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch {
    return [];
  }
}

function sizeOf(file: string): number | undefined {
  try {
    return statSync(file).size;
  } catch {
    return undefined;
  }
}
