import { randomBytes } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';

import { ClientError } from '../client/errors.js';

/** Names the file with the keys; without it nothing is encrypted. The keys themselves are in no variable. */
export const KEY_FILE = 'RANKFLOW_ENCRYPTION_KEY_FILE';

/** AES-256. */
export const KEY_BYTES = 32;

/** One key of a file. */
export interface EncryptionKey {
  readonly id: string;
  readonly key: Buffer;
}

/** Ids stand in every payload, in the clear. */
const ID_FORM = /^[\w.-]{1,64}$/u;
const HEX = /^[0-9a-f]{64}$/iu;
const BASE64 = /^[A-Za-z0-9+/]{43}=?$/u;

const FORM =
  'one key a line, the one to encrypt with first: an id, a space, and 32 bytes in base64 or hex';

/**
 * Keys of a text, in its order; lines that are empty or begin with `#` are left out.
 *
 * @param file names the text in messages, which never hold what stands in it
 * @throws ClientError `Usage`
 */
export function parseKeys(text: string, file: string): EncryptionKey[] {
  const keys: EncryptionKey[] = [];
  for (const [index, line] of text.split(/\r?\n/u).entries()) {
    const words = line.trim().split(/\s+/u);
    const [id = '', value = ''] = words;
    if (id === '' || id.startsWith('#')) continue;
    const wrong = (what: string): ClientError =>
      usage(`${file}, line ${index + 1}: ${what}.`, `The file has ${FORM}.`);
    const key = words.length === 2 ? decodeKey(value) : undefined;
    if (!ID_FORM.test(id) || key === undefined) throw wrong('this is no key with its id');
    if (keys.some((one) => one.id === id)) throw wrong('the id of this key stands there twice');
    keys.push({ id, key });
  }
  if (keys.length > 0) return keys;
  throw usage(`${file} has no keys.`, 'Make one: rankflow codec-server key FILE');
}

function decodeKey(value: string): Buffer | undefined {
  if (HEX.test(value)) return Buffer.from(value, 'hex');
  return BASE64.test(value) ? Buffer.from(value, 'base64') : undefined;
}

/**
 * Reads a file of keys, which nobody but its user may read, as ssh has it with its keys.
 *
 * @throws ClientError `Usage` with the reason
 */
export function readKeys(file: string): EncryptionKey[] {
  let text: string;
  try {
    const { uid, mode } = statSync(file);
    if (uid === process.getuid?.() && (mode & 0o077) !== 0) {
      const shown = (mode & 0o777).toString(8).padStart(4, '0');
      throw usage(
        `Others may read the keys in ${file} (its mode is ${shown}).`,
        `Take that from them: chmod 600 ${file}`,
      );
    }
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof ClientError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'is not there' : `cannot be read (${code})`;
    throw usage(
      `The file of encryption keys ${file}, which ${KEY_FILE} names, ${why}.`,
      'Copy it to this host with the permissions 0600, or make one: rankflow codec-server key FILE',
    );
  }
  return parseKeys(text, file);
}

/** A line of a key that is new. @param now when it is made: a part of its id, so that people see which is the older */
export function newKeyLine(now: Date): { id: string; line: string } {
  const id = `${now.toISOString().slice(0, 10)}-${randomBytes(4).toString('hex')}`;
  return { id, line: `${id} ${randomBytes(KEY_BYTES).toString('base64')}` };
}

const usage = (message: string, wayOut: string): ClientError =>
  new ClientError('Usage', message, { wayOut });
