import { paint } from './paint.js';

/** Takes one line of progress, without a line end. Progress is prose for people: it goes to stderr. */
export type Log = (line: string) => void;

export const logToStderr: Log = (line) => {
  process.stderr.write(`${line}\n`);
};

/**
 * Does `work` and says so: at the start, every 15 s while it lasts, and at the end with the time it took.
 * Long silences are what makes people press ctrl-c in the middle of an installation.
 */
export async function withProgress<T>(log: Log, what: string, work: () => Promise<T>): Promise<T> {
  const started = Date.now();
  const seconds = (): number => Math.round((Date.now() - started) / 1000);
  log(`${what} ...`);
  const timer = setInterval(
    () => log(paint.dim(`  still at it after ${seconds()} s: ${what}`)),
    15_000,
  );
  try {
    const result = await work();
    log(`${paint.green('done')} in ${seconds()} s: ${what}`);
    return result;
  } finally {
    clearInterval(timer);
  }
}
