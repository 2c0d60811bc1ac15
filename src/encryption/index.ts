import path from 'node:path';

import type { DataConverter } from '@temporalio/common';

import { paths } from '../setup/paths.js';
import { EncryptionCodec } from './codec.js';
import { KEY_FILE } from './key-file.js';
import { KeyRing } from './key-ring.js';

/** Loaded by Node itself and bundled for workflows: the built one. */
const failureConverterPath = path.join(paths.packageRoot, 'dist/encryption/failure-converter.cjs');

/** What clients and workers read and write payloads with. */
export interface Encryption {
  readonly dataConverter: DataConverter;
  readonly codec: EncryptionCodec;
  /** Whether this process encrypts; every one reads what is not encrypted. */
  readonly on: boolean;
}

/**
 * Encryption as the environment has it; off when it names no file of keys.
 *
 * @throws ClientError `Usage` when the file cannot be read or is malformed
 */
export function encryption(file = process.env[KEY_FILE]): Encryption {
  const keys = file ? new KeyRing(path.resolve(file)) : undefined;
  const codec = new EncryptionCodec(keys);
  const on = keys !== undefined;
  const dataConverter = { payloadCodecs: [codec], ...(on && { failureConverterPath }) };
  return { dataConverter, codec, on };
}
