import { copyFileSync, statSync, truncateSync } from 'node:fs';

/** What one log file holds at most, about, in bytes. */
export const LOG_BYTES = 64 * 1024 * 1024;

/**
 * Keeps a log small: what it holds becomes `FILE.1`, in place of the one before, and it begins anew. Its writer, who
 * appends, notices nothing; what it writes in just that moment is lost.
 */
export function boundLog(file: string, most = LOG_BYTES): void {
  const { size } = statSync(file, { throwIfNoEntry: false }) ?? { size: 0 };
  if (size <= most) return;
  copyFileSync(file, `${file}.1`);
  truncateSync(file);
}
