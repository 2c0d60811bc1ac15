import type { EngineView, RunSnapshot } from '../../client/snapshot.js';
import { isOver } from '../../client/snapshot.js';
import { etaSeconds, type Rates } from './rate.js';

/** How to paint; the identity when colours are off. */
export interface Paint {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly green: (text: string) => string;
  readonly yellow: (text: string) => string;
  readonly red: (text: string) => string;
}

const identity = (text: string): string => text;
export const PLAIN: Paint = {
  bold: identity,
  dim: identity,
  green: identity,
  yellow: identity,
  red: identity,
};

/** Engines shown one by one; more are counted by state. */
const MAX_ENGINES = 8;
/** Characters of a reason in a line of a log. */
const LONGEST_REASON = 160;

/**
 * The progress display of a run: a few lines of at most `width` columns (before colours).
 *
 * @param rates undefined for a single look, which cannot tell rates
 */
export function renderProgress(
  snapshot: RunSnapshot,
  rates: Rates | undefined,
  width: number,
  paint: Paint = PLAIN,
): string {
  const columns = Math.max(40, width);
  const lines = [
    paint.bold(cut(`${snapshot.runId}  ${snapshot.state}, ${phaseText(snapshot)}`, columns)),
    ...clusterLine(snapshot, columns),
    ...engineLines(snapshot.engines, columns, paint),
    ...(snapshot.totalRows === undefined ? [] : [bar(snapshot, columns, paint)]),
    ...numbersLine(snapshot, rates, columns, paint),
    ...troubleLines(snapshot, columns, paint),
  ];
  return lines.join('\n');
}

/** The same in one line, for logs. Only what a change of is news. */
export function renderLine(snapshot: RunSnapshot, rates: Rates): string {
  const { totalRows, engines } = snapshot;
  const parts = [phaseText(snapshot)];
  if (totalRows !== undefined) parts.push(rowsText(snapshot));
  if (snapshot.failedRows > 0) parts.push(`${snapshot.failedRows} failed`);
  if (snapshot.retries > 0) parts.push(`${snapshot.retries} retrying`);
  if (snapshot.suspects !== undefined) parts.push(suspectsText(snapshot.suspects));
  if (engines.length > 0) parts.push(countStates(engines));
  if (rates.tokensPerSecond > 0) parts.push(`${Math.round(rates.tokensPerSecond)} tokens/s`);
  const eta = etaSeconds(totalRows, snapshot.doneRows, rates.rowsPerSecond);
  if (eta !== undefined && !isOver(snapshot.state)) parts.push(`${formatSeconds(eta)} left`);
  const [worst] = snapshot.troubles;
  if (worst !== undefined)
    parts.push(troubleText(snapshot), ...(worst.wayOut ? [worst.wayOut] : []));
  parts.push(...reasonOf(engines).map((reason) => cut(reason, LONGEST_REASON)));
  return parts.join(' | ');
}

/** Why an engine is not healthy, of the first one that says so. */
function reasonOf(engines: readonly EngineView[]): string[] {
  const engine = engines.find(({ reason }) => reason !== undefined);
  return engine?.reason === undefined ? [] : [`engine ${engine.slot} ${oneLine(engine.reason)}`];
}

/** Changes exactly when a plain log has news: not with every token, nor with the clock. */
export function newsKey({
  state,
  phase,
  doneRows,
  failedRows,
  retries,
  suspects,
  engines,
  troubles,
}: RunSnapshot): string {
  const kinds = troubles.map(({ type }) => type).toSorted();
  const counts = [doneRows, failedRows, retries, suspects, countStates(engines)];
  return JSON.stringify([state, phase, ...counts, ...reasonOf(engines), kinds]);
}

function phaseText({ phase, startedAt, at, state }: RunSnapshot): string {
  if (phase === 'stored') return 'as its store says';
  if (at === startedAt) return phase;
  if (isOver(state)) return `after ${formatSeconds((at - startedAt) / 1000)}`;
  return `${phase} (${formatSeconds((at - startedAt) / 1000)})`;
}

function clusterLine({ cluster }: RunSnapshot, columns: number): string[] {
  if (cluster === undefined) return [];
  const nodes = `${cluster.nodesUp}/${cluster.nodesWanted} nodes up`;
  return [cut(`cluster  ${cluster.name}: ${cluster.state}, ${nodes}`, columns)];
}

function engineLines(engines: readonly EngineView[], columns: number, paint: Paint): string[] {
  if (engines.length > MAX_ENGINES) return [cut(`engines  ${countStates(engines)}`, columns)];
  return engines.map((engine) => colour(engine.state, paint)(cut(engineText(engine), columns)));
}

function engineText(engine: EngineView): string {
  const parts = [`engine ${engine.slot}  ${engine.state}`];
  if (engine.loadingSeconds !== undefined) parts.push(formatSeconds(engine.loadingSeconds));
  if (engine.rowsInFlight > 0) parts.push(`${engine.rowsInFlight} rows in flight`);
  if (engine.restarts > 0) parts.push(`restarted ${engine.restarts}x`);
  if (engine.reason !== undefined) parts.push(oneLine(engine.reason));
  return parts.join(', ');
}

function colour(state: string, paint: Paint): (text: string) => string {
  if (state === 'ready' || state === 'generating') return paint.green;
  if (state === 'failed' || state === 'dead') return paint.red;
  return paint.yellow;
}

/** Batches that killed engines. */
const suspectsText = (suspects: number): string => `${suspects} in quarantine`;

/** `2 ready, 1 loading`. */
function countStates(engines: readonly EngineView[]): string {
  const counts = new Map<string, number>();
  for (const { state } of engines) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts].map(([state, count]) => `${count} ${state}`).join(', ');
}

function bar(snapshot: RunSnapshot, columns: number, paint: Paint): string {
  const { totalRows = 0, doneRows } = snapshot;
  const share = totalRows === 0 ? 1 : Math.min(1, doneRows / totalRows);
  const text = ` ${percent(share)} ${rowsText(snapshot)}`;
  const cells = Math.max(10, Math.min(50, columns - text.length - 2));
  const full = Math.floor(share * cells);
  return `[${paint.green('='.repeat(full))}${' '.repeat(cells - full)}]${text}`;
}

/** Never 100 % before the last row is done. */
const percent = (share: number): string => `${Math.floor(share * 100)}%`.padStart(4);

const rowsText = ({ doneRows, totalRows }: RunSnapshot): string => `${doneRows}/${totalRows} rows`;

function numbersLine(
  snapshot: RunSnapshot,
  rates: Rates | undefined,
  columns: number,
  paint: Paint,
): string[] {
  const { totalRows, failedRows, retries, suspects } = snapshot;
  if (totalRows === undefined) return [];
  const parts = [
    ...(rates === undefined ? [] : [`${Math.round(rates.tokensPerSecond)} tokens/s`]),
    `${failedRows} failed`,
    `${retries} retrying`,
    ...(suspects === undefined ? [] : [suspectsText(suspects)]),
    ...etaText(snapshot, rates),
  ];
  const text = cut(parts.join(', '), columns);
  return [failedRows > 0 ? paint.red(text) : paint.dim(text)];
}

/** The worst trouble and its way out, and how many kinds there are more. */
function troubleLines(snapshot: RunSnapshot, columns: number, paint: Paint): string[] {
  const [worst, ...more] = snapshot.troubles;
  if (worst === undefined) return [];
  const others = more.length === 0 ? '' : ` (and ${more.length} more)`;
  return [
    paint.yellow(cut(`${troubleText(snapshot)}${others}`, columns)),
    ...(worst.wayOut === undefined ? [] : [paint.dim(cut(`way out: ${worst.wayOut}`, columns))]),
  ];
}

/** `paused: the store has no room for …`, or `retrying 3x: the store cannot serve …`. */
function troubleText({ state, troubles: [worst] }: RunSnapshot): string {
  if (worst === undefined) return '';
  const times = worst.count > 1 ? ` ${worst.count}x` : '';
  return `${state === 'paused' ? 'paused' : `retrying${times}`}: ${worst.message}`;
}

function etaText({ totalRows, doneRows, state }: RunSnapshot, rates: Rates | undefined): string[] {
  if (rates === undefined || isOver(state)) return [];
  const eta = etaSeconds(totalRows, doneRows, rates.rowsPerSecond);
  return [eta === undefined ? 'ETA unknown' : `ETA ${formatSeconds(eta)}`];
}

/** Reasons quote logs. */
const oneLine = (text: string): string => text.replaceAll(/\s+/gu, ' ').trim();

const cut = (text: string, columns: number): string =>
  text.length <= columns ? text : `${text.slice(0, columns - 1)}…`;

/** `75.4` → `1m15s`; hours from 3600 s on. */
export function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}m${String(whole % 60).padStart(2, '0')}s`;
  return `${Math.floor(minutes / 60)}h${String(minutes % 60).padStart(2, '0')}m`;
}
