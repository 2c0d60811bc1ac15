import type { Health } from '../lab/health.js';
import type { Struck } from '../lab/lab.js';
import type { Trial } from '../lab/trial.js';
import type { Phase } from '../phases.js';
import type { Violation } from './violation.js';

/**
 * I6: after each fault the run went on, the batches that it interrupted were committed, and all that it hit was well
 * again, within its bound. Fills in what was measured. Where faults follow one another, the bound counts from the last
 * of them that came before the recovery, and a fault that comes while an earlier one is recovered from has the time
 * of that one as well: a run that has no engine goes on with its engine, whichever process is killed meanwhile.
 */
export function checkRecovery(struck: readonly Struck[], health: Health): Violation[] {
  const recoveries: Recovery[] = [];
  return struck.flatMap((one) => {
    const { record, trial, snapshot, at, endedAt, fault, strike } = one;
    const seconds = (until: number | undefined): number | undefined =>
      until === undefined ? undefined : Math.round((until - at) / 100) / 10;
    const { view } = trial;

    const goesOn = wentOn(trial, record.phase, at);
    const goesOnSeconds = seconds(goesOn);
    if (goesOnSeconds !== undefined) record.goesOnSeconds = goesOnSeconds;

    const lost = new Set(snapshot.lost);
    const interrupted = view.batches
      .filter(({ firstRow, rows }) => overlaps(lost, firstRow, rows))
      .map(({ name }) => view.commits.get(name)?.seenAt);
    const commits = interrupted.filter((when) => when !== undefined);
    const batches = seconds(commits.length === 0 ? undefined : Math.max(...commits));
    if (batches !== undefined) record.batchesSeconds = batches;

    // Before it ends nobody may have noticed a fault that lasts: a look then proves nothing.
    const from = strike.heal === undefined ? at : endedAt;
    const judged = health.judges(fault.scope, trial);
    const healed = judged ? health.healedAt(from, fault.scope, trial, strike) : undefined;
    const healedSeconds = seconds(healed);
    if (healedSeconds !== undefined) record.healedSeconds = healedSeconds;
    if (judged && healed === undefined) {
      return [
        trial.violation(
          'I6',
          'never-well',
          `after fault #${record.number} ${record.fault} it was never all well again`,
        ),
      ];
    }

    const tokens = view.tokensOfRows();
    record.lostRows = lost.size;
    record.lostTokens = snapshot.lost.reduce((sum, row) => sum + (tokens.get(row) ?? 0), 0);

    const done = Math.max(healed ?? at, goesOn ?? at, ...commits, at);
    const last = struck
      .filter((other) => other.at > at && other.at < done && concerns(other, one))
      .reduce((latest, other) => Math.max(latest, other.endedAt), endedAt);
    record.overlapped = struck.some((other) => other.at > at && other.at < done);
    const earlier = recoveries
      .filter((other) => other.done > at && concerns(other.of, one))
      .map(({ due }) => due);
    const due = Math.max(last + record.boundSeconds * 1000, ...earlier);
    recoveries.push({ of: one, done, due });
    if (done <= due) return [];
    const [took, promised] = [done - last, due - last].map((ms) => (ms / 1000).toFixed(0));
    return [
      trial.violation(
        'I6',
        'slow-recovery',
        `fault #${record.number} ${record.fault} took ${took} s to recover from, and ${promised} s at most are promised`,
      ),
    ];
  });
}

/** Whether a fault hits what another one is recovered on: the stack serves all, a cluster its fleets. */
function concerns(fault: Struck, other: Struck): boolean {
  const scopes = [fault.fault.scope, other.fault.scope];
  if (scopes.includes('stack') || fault.trial.fleet === other.trial.fleet) return true;
  return scopes.includes('cluster') && fault.trial.cluster === other.trial.cluster;
}

/** When a fault had been recovered from, and when it had to be, ms since the epoch. */
interface Recovery {
  readonly of: Struck;
  readonly done: number;
  readonly due: number;
}

/** When the run did the next thing that its phase is for, ms since the epoch; its end, when that came first. */
function wentOn({ view, endedAt }: Trial, phase: Phase, after: number): number | undefined {
  const { plan, attempt, manifest } = view.seenAt;
  const rows = [...view.finishedAt.values()].filter((when) => when > after);
  const nextRow = rows.length === 0 ? undefined : Math.min(...rows);
  const next: Readonly<Record<Phase, number | undefined>> = {
    'bring-up': attempt,
    plan,
    deploy: attempt,
    generate: nextRow,
    commit: nextRow,
    finalize: manifest,
    teardown: endedAt,
  };
  return [next[phase], endedAt].find((when) => when !== undefined && when > after);
}

function overlaps(rows: ReadonlySet<number>, first: number, count: number): boolean {
  for (let row = first; row < first + count; row += 1) if (rows.has(row)) return true;
  return false;
}
