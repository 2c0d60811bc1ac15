import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';

import { METADATA_ENCODING_KEY, type Payload, type PayloadCodec } from '@temporalio/common';
import proto from '@temporalio/proto';

import { KEY_FILE } from './key-file.js';
import type { KeyRing } from './key-ring.js';

const { Payload: Message } = proto.temporal.api.common.v1;

/** The form of Temporal's samples for encryption in all languages: nonce, ciphertext, tag. */
const CIPHER = 'aes-256-gcm';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

const ENCODING = 'binary/encrypted';
const CIPHER_KEY = 'encryption-cipher';
const CIPHER_NAME = 'AES/GCM/NoPadding';
const KEY_ID_KEY = 'encryption-key-id';

/** How messages begin of payloads for which there is no key. */
export const ENCRYPTED = 'this is encrypted';

/** A payload that the keys of this process do not open. Its name is the type that workflows do not try again. */
export class KeyMismatch extends Error {
  override readonly name = 'KeyMismatch';
}

/**
 * Encrypts whole payloads, metadata included, with AES-256-GCM. Without keys it lets everything through, and says what
 * is wrong when it meets a payload that is encrypted. What is not encrypted is read as it is: histories from before.
 */
export class EncryptionCodec implements PayloadCodec {
  constructor(private readonly keys?: KeyRing) {}

  async encode(payloads: Payload[]): Promise<Payload[]> {
    const { keys } = this;
    return keys === undefined ? payloads : payloads.map((payload) => encrypt(payload, keys));
  }

  /** @throws KeyMismatch */
  async decode(payloads: Payload[]): Promise<Payload[]> {
    return payloads.map((payload) => (isEncrypted(payload) ? this.#decrypt(payload) : payload));
  }

  #decrypt(payload: Payload): Payload {
    const id = textOf(payload, KEY_ID_KEY);
    if (this.keys === undefined) {
      throw new KeyMismatch(
        `${ENCRYPTED} (key ${id}), and this process has no keys: ${KEY_FILE} is not set`,
      );
    }
    const key = this.keys.find(id);
    if (key === undefined) {
      const known = this.keys.ids.join(', ');
      throw new KeyMismatch(
        `${ENCRYPTED} with the key ${id}, which is not in ${this.keys.file} (it has ${known})`,
      );
    }
    const data = payload.data ?? Buffer.alloc(0);
    const end = data.length - TAG_BYTES;
    try {
      if (end < NONCE_BYTES) throw new Error('cut off');
      const decipher = createDecipheriv(CIPHER, key, data.subarray(0, NONCE_BYTES), {
        authTagLength: TAG_BYTES,
      });
      decipher.setAuthTag(data.subarray(end));
      const plain = Buffer.concat([
        decipher.update(data.subarray(NONCE_BYTES, end)),
        decipher.final(),
      ]);
      return Message.decode(plain);
    } catch {
      throw new KeyMismatch(
        `the key ${id} does not open this: it was tampered with, or encrypted with another key of that id`,
      );
    }
  }
}

function encrypt(payload: Payload, keys: KeyRing): Payload {
  const { id, key } = keys.first;
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  const sealed = cipher.update(Message.encode(payload).finish());
  return {
    metadata: {
      [METADATA_ENCODING_KEY]: Buffer.from(ENCODING),
      [CIPHER_KEY]: Buffer.from(CIPHER_NAME),
      [KEY_ID_KEY]: Buffer.from(id),
    },
    data: Buffer.concat([nonce, sealed, cipher.final(), cipher.getAuthTag()]),
  };
}

const isEncrypted = (payload: Payload): boolean =>
  textOf(payload, METADATA_ENCODING_KEY) === ENCODING;

const textOf = ({ metadata }: Payload, name: string): string =>
  Buffer.from(metadata?.[name] ?? []).toString();
