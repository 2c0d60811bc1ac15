import { createLogUpdate } from 'log-update';

import type { Client } from '@temporalio/client';

import { EXIT } from '../../client/errors.js';
import { watchRun } from '../../client/progress.js';
import { isOver, type RunSnapshot } from '../../client/snapshot.js';
import { paint } from '../../setup/paint.js';
import { printJson, say } from '../output.js';
import { etaSeconds, type Rates, RateWindow } from './rate.js';
import { newsKey, renderLine, renderProgress } from './render.js';

/** Milliseconds between two lines of a plain log, so that a fast run does not flood it. */
const LINE_INTERVAL_MS = 3_000;

interface Display {
  show(snapshot: RunSnapshot, rates: Rates): void;
  /** Says something between two pictures. */
  note(line: string): void;
  /** Leaves the last picture on the screen. */
  end(): void;
}

/**
 * Shows a run until it is over, or until Ctrl-C, which leaves the run alone.
 *
 * @returns the last snapshot; undefined when it was interrupted
 */
export async function followRun(
  client: Client,
  runId: string,
  json: boolean,
): Promise<RunSnapshot | undefined> {
  const detach = new AbortController();
  const onInterrupt = (): void => {
    // The second time somebody does not want to wait for an answer that may not come.
    if (detach.signal.aborted) process.exit(EXIT.interrupted);
    detach.abort();
  };
  // Not `once`: a listener that is gone when the others are called lets the cursor's restorer end the process.
  process.on('SIGINT', onInterrupt);
  process.on('SIGTERM', onInterrupt);
  const display = json ? jsonDisplay() : process.stderr.isTTY ? barDisplay() : lineDisplay();
  const window = new RateWindow();
  try {
    for await (const snapshot of watchRun(client, runId, detach.signal, ({ message }) =>
      display.note(`Nothing can be seen for now, looking again: ${message}`),
    )) {
      if (isOver(snapshot.state)) return snapshot;
      const { at, doneRows: rows, completionTokens: tokens } = snapshot;
      window.add({ at, rows, tokens });
      display.show(snapshot, window.rates());
    }
    return undefined;
  } finally {
    display.end();
    process.off('SIGINT', onInterrupt);
    process.off('SIGTERM', onInterrupt);
  }
}

/** What to do after Ctrl-C. */
export function sayDetached(runId: string): void {
  say(`Detached. The run ${runId} goes on.`);
  say(`  watch it:   rankflow watch ${runId}`);
  say(`  cancel it:  rankflow cancel ${runId}`);
}

function barDisplay(): Display {
  const picture = createLogUpdate(process.stderr);
  return {
    show: (snapshot, rates) =>
      picture(renderProgress(snapshot, rates, process.stderr.columns ?? 80, paint)),
    note: (line) => picture.persist(line),
    end: () => picture.done(),
  };
}

function lineDisplay(): Display {
  let shown = '';
  let shownAt = 0;
  return {
    show: (snapshot, rates) => {
      const key = newsKey(snapshot);
      if (key === shown || snapshot.at - shownAt < LINE_INTERVAL_MS) return;
      shown = key;
      shownAt = snapshot.at;
      say(renderLine(snapshot, rates));
    },
    note: say,
    end: () => {},
  };
}

function jsonDisplay(): Display {
  let shown = '';
  return {
    show: (snapshot, rates) => {
      const key = newsKey(snapshot);
      if (key === shown) return;
      shown = key;
      const eta = etaSeconds(snapshot.totalRows, snapshot.doneRows, rates.rowsPerSecond);
      printJson({
        event: 'progress',
        ...snapshot,
        tokensPerSecond: Math.round(rates.tokensPerSecond),
        ...(eta !== undefined && { etaSeconds: Math.round(eta) }),
      });
    },
    note: say,
    end: () => {},
  };
}
