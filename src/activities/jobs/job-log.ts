import { mkdir, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { stripVTControlCharacters } from 'node:util';

import type { JobSpec } from '../../contracts/job.js';
import { allowed } from '../../roots.js';
import { jobFolder } from '../../workflows/job-plan.js';

/** Bytes of one file of a log. */
export const SEGMENT_BYTES = 8 * 1024 * 1024;
/** Files that are kept: the first, where things go wrong, and the newest. 64 MiB together. */
export const MOST_SEGMENTS = 8;

const segmentName = (index: number): string => `${String(index).padStart(6, '0')}.log`;

/** Folder with the log of one attempt. @throws PathRefused */
export const logFolder = (spec: Pick<JobSpec, 'store' | 'jobId'>, submissionId: string): string =>
  allowed(path.join(jobFolder(spec), 'logs', submissionId));

/** The numbers of the files of a log, in order. */
async function segmentsOf(folder: string): Promise<number[]> {
  const files = await readdir(folder).catch(() => []);
  return files
    .filter((file) => /^\d{6}\.log$/u.test(file))
    .map((file) => Number.parseInt(file, 10))
    .toSorted((a, b) => a - b);
}

/** Bytes that a log had so far, also those that are not kept any more. */
export async function logSize(folder: string): Promise<number> {
  const last = (await segmentsOf(folder)).at(-1);
  if (last === undefined) return 0;
  return last * SEGMENT_BYTES + (await stat(path.join(folder, segmentName(last)))).size;
}

/**
 * Writes part of a log at its place, so that whoever writes it again changes nothing; removes what is too old.
 *
 * @param at number of the first byte in the whole log
 */
export async function writeLog(folder: string, at: number, data: Uint8Array): Promise<void> {
  await mkdir(folder, { recursive: true });
  let done = 0;
  while (done < data.length) {
    const index = Math.floor((at + done) / SEGMENT_BYTES);
    const offset = (at + done) % SEGMENT_BYTES;
    const part = data.subarray(done, done + SEGMENT_BYTES - offset);
    // `a` would ignore the place; a file that is not there yet has to be made.
    const file = await open(path.join(folder, segmentName(index)), 'a').then(async (made) => {
      await made.close();
      return open(path.join(folder, segmentName(index)), 'r+');
    });
    try {
      await file.write(part, 0, part.length, offset);
    } finally {
      await file.close();
    }
    done += part.length;
    const old = index - MOST_SEGMENTS + 1;
    if (old > 0) await rm(path.join(folder, segmentName(old)), { force: true });
  }
}

/**
 * What is kept of a log, from a byte on; a line stands for what is not kept.
 *
 * @returns the end, from where the next call goes on
 */
export async function readLog(
  folder: string,
  from: number,
  take: (data: Buffer) => void,
): Promise<number> {
  let at = from;
  for (const index of await segmentsOf(folder)) {
    const start = index * SEGMENT_BYTES;
    if (start > at) {
      take(Buffer.from(`\n[${start - at} bytes of the log were not kept]\n`));
      at = start;
    }
    const file = await open(path.join(folder, segmentName(index)));
    try {
      for (;;) {
        const { buffer, bytesRead } = await file.read(Buffer.alloc(65_536), 0, 65_536, at - start);
        if (bytesRead === 0 || at - start < 0) break;
        take(buffer.subarray(0, bytesRead));
        at += bytesRead;
      }
    } finally {
      await file.close();
    }
  }
  return at;
}

/** File beside a log whose end was not copied, with the reason. Not in the log: its bytes are those of the job. */
const CUT_FILE = 'cut.txt';

/** Keeps why the end of a log may be missing; undefined: it is whole. */
export async function keepCut(folder: string, reason: string | undefined): Promise<void> {
  const file = path.join(folder, CUT_FILE);
  if (reason === undefined) return rm(file, { force: true });
  await mkdir(folder, { recursive: true });
  await writeFile(file, `${asLine(reason)}\n`);
}

/** Why the end of a log may be missing; undefined when it is whole. */
export const readCut = async (folder: string): Promise<string | undefined> =>
  readFile(path.join(folder, CUT_FILE), 'utf8').then(asLine, () => undefined);

/** So much of its end is looked at for why a script failed. */
export const END_OF_LOG_BYTES = 65_536;

/** The last bytes of a log as text. */
export async function logTail(folder: string, bytes: number): Promise<string> {
  const from = Math.max(0, (await logSize(folder)) - bytes);
  const parts: Buffer[] = [];
  await readLog(folder, from, (data) => parts.push(data));
  return Buffer.concat(parts).toString('utf8');
}

/** The longest line that is shown or goes into a history, in characters; the whole is in the store. */
const LONGEST_LINE = 300;

/** Text as one short line. */
export const asLine = (text: string): string =>
  stripVTControlCharacters(text).replaceAll(/\s+/gu, ' ').trim().slice(0, LONGEST_LINE);

/** The last line that says something: of a script that failed mostly why. Empty when there is none. */
export const lastLine = (text: string): string =>
  text
    .split(/[\r\n]+/u)
    .map(asLine)
    .findLast((line) => line !== '') ?? '';
