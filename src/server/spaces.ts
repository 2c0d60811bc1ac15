import path from 'node:path';

import { BatchRecords } from './batch-records.js';
import type { Log } from './batch-worker.js';
import { FileStore } from './files.js';
import { listFolder } from './records.js';

/** What the keys of one namespace see. */
export interface Space {
  readonly files: FileStore;
  readonly batches: BatchRecords;
}

/** The namespaces of a server: a folder each, and no way from one into another. */
export class Spaces {
  private readonly known = new Map<string, Space>();

  /**
   * @param store root of the store that runs write to
   * @param root folder of the server's own records
   */
  constructor(
    private readonly store: string,
    readonly root: string,
    private readonly now: () => number = Date.now,
    private readonly log?: Log,
  ) {}

  of(namespace: string): Space {
    const folder = path.join(this.root, 'spaces', namespace);
    const space = this.known.get(namespace) ?? {
      files: new FileStore(this.store, folder, this.now, this.log),
      batches: new BatchRecords(folder),
    };
    this.known.set(namespace, space);
    return space;
  }

  /** Removes what has expired, in all namespaces: one that cannot be swept holds up no other. */
  async sweep(): Promise<void> {
    for (const namespace of await listFolder(path.join(this.root, 'spaces'))) {
      try {
        await this.of(namespace).files.sweep();
      } catch (error) {
        const reason = (error as Error).message;
        this.log?.error({ namespace, reason }, 'the files of a namespace could not be swept');
      }
    }
  }
}
