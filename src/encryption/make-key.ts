import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { link, open, readFile, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';

import { newKeyLine, readKeys } from './key-file.js';

/**
 * Makes a key and puts it into a file, which is new or has keys. The file is replaced in one step: processes that read
 * it see all of it.
 *
 * @param first whether it is to be the one to encrypt with; it is in a new file
 * @throws ClientError `Usage` when the file is there and holds no keys, or others may read it
 */
export async function addKey(
  given: string,
  first: boolean,
): Promise<{ readonly id: string; readonly file: string; readonly first: boolean }> {
  const file = path.resolve(given);
  const there = existsSync(file);
  if (there) readKeys(file);
  const before = there ? await readFile(file, 'utf8') : '';
  const { id, line } = newKeyLine(new Date());
  const own = `${line}\n`;
  const ended = before === '' || before.endsWith('\n') ? before : `${before}\n`;
  const temporary = `${file}.${randomBytes(4).toString('hex')}.tmp`;
  try {
    const handle = await open(temporary, 'wx', 0o600);
    try {
      if (there) {
        // It stays the file of whom it was, who reads it.
        const { uid, gid, mode } = await stat(file);
        if (process.getuid?.() === 0) await handle.chown(uid, gid);
        await handle.chmod(mode & 0o777);
      }
      await handle.writeFile(first ? own + ended : ended + own);
      await handle.sync();
    } finally {
      await handle.close();
    }
    // A new file must not take the place of one that somebody else has just made.
    if (there) await rename(temporary, file);
    else await link(temporary, file);
  } finally {
    await rm(temporary, { force: true });
  }
  return { id, file, first: first || !there };
}
