import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';

import { MESSAGE_FILE } from '../activities/jobs/follow.js';
import { logFolder, readLog } from '../activities/jobs/job-log.js';
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

/** What Ray said of an attempt that never came to write a log; undefined when it said nothing. */
export async function rayMessage(place: JobPlace, attempt: number): Promise<string | undefined> {
  const folder = logFolder(place, submissionIdOf(place.jobId, attempt));
  return readFile(path.join(folder, MESSAGE_FILE), 'utf8').catch(() => undefined);
}
