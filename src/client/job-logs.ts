import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';

import { MESSAGE_FILE } from '../activities/jobs/follow.js';
import {
  END_OF_LOG_BYTES,
  lastLine,
  logFolder,
  logTail,
  readCut,
  readLog,
} from '../activities/jobs/job-log.js';
import { submissionIdOf } from '../contracts/names.js';
import { allowed } from '../roots.js';
import { jobFolder } from '../workflows/job-plan.js';

/** Where a job's files are. */
export interface JobPlace {
  readonly store: string;
  readonly jobId: string;
}

/** Numbers of the attempts whose logs a store has, in order. Needs no server. */
export async function storedAttempts(place: JobPlace): Promise<number[]> {
  const names = await readdir(allowed(path.join(jobFolder(place), 'logs'))).catch(() => []);
  return names
    .map((name) => Number(name.slice(`${place.jobId}-a`.length)))
    .filter((number) => Number.isInteger(number) && number > 0)
    .toSorted((a, b) => a - b);
}

/**
 * Reads what is kept of an attempt's log, from a byte on.
 *
 * @returns from where the next call goes on
 */
export const readAttemptLog = async (
  place: JobPlace,
  attempt: number,
  from: number,
  take: (data: Buffer) => void,
): Promise<number> => readLog(logFolder(place, submissionIdOf(place.jobId, attempt)), from, take);

/**
 * The last line of an attempt's log that says something: of a script that failed mostly why. Read from the store, as
 * it may quote what no history may hold; undefined where the store is not at hand.
 */
export async function endOfLog(place: JobPlace, attempt: number): Promise<string | undefined> {
  try {
    const folder = logFolder(place, submissionIdOf(place.jobId, attempt));
    return lastLine(await logTail(folder, END_OF_LOG_BYTES)) || undefined;
  } catch {
    return undefined;
  }
}

/** What Ray said of an attempt that never came to write a log; undefined when it said nothing. */
export async function rayMessage(place: JobPlace, attempt: number): Promise<string | undefined> {
  const folder = logFolder(place, submissionIdOf(place.jobId, attempt));
  return readFile(path.join(folder, MESSAGE_FILE), 'utf8').catch(() => undefined);
}

/**
 * What is to be shown after an attempt's log: what Ray said where there is none, or that its end may be missing.
 *
 * @param end bytes of the log
 */
export async function afterLog(
  place: JobPlace,
  attempt: number,
  end: number,
): Promise<string | undefined> {
  const said = end === 0 ? await rayMessage(place, attempt) : undefined;
  if (said !== undefined) return said;
  const reason = await readCut(logFolder(place, submissionIdOf(place.jobId, attempt)));
  return reason && `\n[lines may be missing from here on: ${reason}]\n`;
}
