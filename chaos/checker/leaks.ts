import { createReadStream, readdirSync, statSync } from 'node:fs';
import path from 'node:path';

import type { Violation } from './violation.js';

/** A text that must not be found, and what it is. */
export interface Secret {
  readonly what: 'prompt' | 'answer' | 'secret';
  /** For messages: never the text itself. */
  readonly name: string;
  readonly text: string;
}

/** How simulated answers begin, whatever they answer: two words of eight hexadecimal digits. */
const SIMULATED_ANSWER = /simulated [0-9a-f]{8} [0-9a-f]{8}/u;

/** I7: none of the texts is in the bytes. */
export function findLeaks(
  bytes: Uint8Array,
  where: string,
  secrets: readonly Secret[],
): Violation[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = secrets.filter(({ text }) => buffer.includes(text));
  const violations = found.map(({ what, name }): Violation => {
    return { invariant: 'I7', code: `${what}-leak`, message: `${name} is in ${where}` };
  });
  if (SIMULATED_ANSWER.test(buffer.toString('latin1'))) {
    violations.push({ invariant: 'I7', code: 'answer-leak', message: `an answer is in ${where}` });
  }
  return violations;
}

/** I7: none of the texts is in a file, or in any file below a folder. Returns how many files there were, too. */
export async function findLeaksInFiles(
  root: string,
  secrets: readonly Secret[],
): Promise<{ readonly files: number; readonly violations: readonly Violation[] }> {
  const violations: Violation[] = [];
  const files = filesBelow(root);
  for (const file of files) violations.push(...(await findLeaksInFile(file, secrets)));
  return { files: files.length, violations };
}

/** Read in pieces that overlap: Temporal's database may be large. */
async function findLeaksInFile(file: string, secrets: readonly Secret[]): Promise<Violation[]> {
  const overlap = 256;
  let before = Buffer.alloc(0);
  try {
    for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) {
      const data = Buffer.concat([before, chunk as Buffer]);
      const found = findLeaks(data, file, secrets);
      if (found.length > 0) return found;
      before = data.subarray(Math.max(0, data.length - overlap));
    }
  } catch {
    // It went while it was read: logs are rotated, and nodes are removed.
  }
  return [];
}

function filesBelow(root: string): string[] {
  try {
    const info = statSync(root);
    if (info.isFile()) return [root];
    if (!info.isDirectory()) return [];
    return readdirSync(root, { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory() || entry.isFile() ? filesBelow(path.join(root, entry.name)) : [],
    );
  } catch {
    return [];
  }
}
