import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import path from 'node:path';

import { z } from 'zod';

import { RecordFolder } from './records.js';

const KeyRecord = z.object({
  id: z.string(),
  name: z.string(),
  /** Whose files and batches the key sees. */
  namespace: z.string(),
  /** Hex sha256 of the secret. */
  hash: z.string().regex(/^[0-9a-f]{64}$/u),
  createdAt: z.string(),
  revokedAt: z.string().optional(),
});
export type KeyRecord = z.infer<typeof KeyRecord>;

/** Who a request comes from. */
export interface Principal {
  readonly keyId: string;
  readonly namespace: string;
}

/** `rf-<id>-<secret>`: 16 hex digits to find the record by, 32 random bytes to prove it. */
const KEY_FORM = /^rf-([0-9a-f]{16})-([\w-]{43})$/u;
const KEY_ID_FORM = /^[0-9a-f]{16}$/u;

/** Compared with when there is no such key, so that an unknown id takes as long as a wrong secret. */
const NO_HASH = Buffer.alloc(32);

/**
 * API keys, one small record each. Only the hash of a secret is kept. A secret has 256 random bits: nothing can be
 * guessed, so a plain hash protects it, and a slow one would only slow each request down.
 */
export class KeyStore {
  private readonly records: RecordFolder<KeyRecord>;

  constructor(root: string) {
    this.records = new RecordFolder(path.join(root, 'keys'), KeyRecord);
  }

  /**
   * Makes a key. It has a namespace of its own, unless it is to replace another key in that one's.
   *
   * @param sameAs id of the key whose files and batches it sees
   * @returns the key, which is shown this once; undefined when there is no key `sameAs`
   */
  async create(
    name: string,
    sameAs?: string,
  ): Promise<{ key: string; record: KeyRecord } | undefined> {
    const other = sameAs === undefined ? undefined : await this.find(sameAs);
    if (sameAs !== undefined && other === undefined) return undefined;
    const id = randomBytes(8).toString('hex');
    const secret = randomBytes(32).toString('base64url');
    const record: KeyRecord = {
      id,
      name,
      namespace: other?.namespace ?? id,
      hash: hashOf(secret).toString('hex'),
      createdAt: new Date().toISOString(),
    };
    await this.records.create(id, record);
    return { key: `rf-${id}-${secret}`, record };
  }

  /** All keys, the oldest first. */
  async list(): Promise<KeyRecord[]> {
    const names = await this.records.names();
    const found = await Promise.all(names.map((name) => this.records.read(name)));
    return found
      .filter((record) => record !== undefined)
      .toSorted((a, b) => a.createdAt.localeCompare(b.createdAt));
  }

  /**
   * Ends a key, at once and for every server on this store.
   *
   * @returns false when there is no such key
   */
  async revoke(id: string): Promise<boolean> {
    const record = await this.find(id);
    if (record === undefined) return false;
    const revokedAt = record.revokedAt ?? new Date().toISOString();
    await this.records.replace(id, { ...record, revokedAt });
    return true;
  }

  /** Who a key belongs to; undefined when it is unknown, wrong or revoked. */
  async verify(key: string): Promise<Principal | undefined> {
    const [, id = '', secret = ''] = KEY_FORM.exec(key) ?? [];
    const record = await this.find(id);
    const expected = record === undefined ? NO_HASH : Buffer.from(record.hash, 'hex');
    const equal = timingSafeEqual(hashOf(secret), expected);
    if (!equal || record === undefined || record.revokedAt !== undefined) return undefined;
    return { keyId: record.id, namespace: record.namespace };
  }

  private async find(id: string): Promise<KeyRecord | undefined> {
    return KEY_ID_FORM.test(id) ? this.records.read(id) : undefined;
  }
}

const hashOf = (secret: string): Buffer => createHash('sha256').update(secret).digest();
