import { inferenceWorkflowId } from '../../dist/contracts/names.js';
import {
  type CommitDocument,
  type ManifestDocument,
  type ResultLine,
  parse,
  parseLines,
  sha256,
} from '../store/documents.js';
import type { RunView } from '../store/view.js';
import { Answers } from '../workload.js';
import type { Subject, Violation } from './violation.js';

/** How much of what a command line said at its end is told (characters). */
const LAST_WORDS = 400;

/** What became of the rows of a run. */
export interface RowCounts {
  readonly lost: number;
  readonly duplicated: number;
  /** Completion tokens of the answers in the output. */
  readonly tokens: number;
}

/** How many examples a message names: ids only, never a prompt. */
const SHOWN = 3;

/**
 * I1: the output and error lines are those of the input, each once, in input order, each with the answer to its
 * own prompt; the run ended as it should; no commit changed after it was made.
 */
export async function checkRows(
  subject: Subject,
): Promise<{ violations: Violation[]; counts: RowCounts }> {
  const { view, workload } = subject;
  const violations: Violation[] = [];
  const report = (code: string, message: string): void => {
    violations.push({ invariant: 'I1', code, message, run: subject.runId });
  };
  await checkCommits(view, report);
  checkEnd(subject, report);
  const manifest = view.manifest;
  if (manifest === undefined) {
    // A run that is cancelled before its first batch has nothing to assemble, and nothing to lose.
    const lost = subject.cancelled && view.attempts.size === 0 ? 0 : workload.rows.length;
    if (lost > 0) report('no-output', 'the run has no manifest');
    return { violations, counts: { lost, duplicated: 0, tokens: 0 } };
  }
  const output = await lines(view, manifest.output.path);
  const errors = await lines(view, manifest.errors.path);
  const seen = new Map<string, number>();
  for (const { custom_id: id } of [...output, ...errors]) {
    seen.set(id ?? '', (seen.get(id ?? '') ?? 0) + 1);
  }
  const ids = workload.rows.map(({ customId }) => customId);
  const known = new Set(ids);
  const lost = ids.filter((id) => !seen.has(id));
  const doubled = ids.filter((id) => (seen.get(id) ?? 0) > 1);
  const foreign = [...seen.keys()].filter((id) => !known.has(id));
  if (lost.length > 0) report('row-lost', `${lost.length} rows have no line: ${some(lost)}`);
  if (doubled.length > 0)
    report('row-doubled', `${doubled.length} rows have more: ${some(doubled)}`);
  if (foreign.length > 0) report('row-foreign', `${foreign.length} lines are of no row`);
  checkOrder([output, errors], ids, report);
  checkAnswers(subject, output, report);
  checkErrors(subject, errors, report);
  await checkPublished(view, manifest, report);
  const tokens = output.reduce(
    (sum, { response }) => sum + (response?.body.usage?.completion_tokens ?? 0),
    0,
  );
  const duplicated = [...seen.values()].reduce((sum, count) => sum + count - 1, 0);
  return { violations, counts: { lost: lost.length, duplicated, tokens } };
}

type Report = (code: string, message: string) => void;
const some = (ids: readonly string[]): string => ids.slice(0, SHOWN).join(', ');

async function lines(view: RunView, key: string): Promise<ResultLine[]> {
  const data = await view.reader.read(key);
  return parseLines(data ?? Buffer.alloc(0)).filter((line) => line !== undefined) as ResultLine[];
}

/** A commit is create-only: what it says when it is first seen is what it says at the end. */
async function checkCommits(view: RunView, report: Report): Promise<void> {
  for (const [batch, { text, document }] of view.commits) {
    const data = await view.reader.read(view.key('commits', `${batch}.json`));
    if (data === undefined) report('commit-gone', `the commit of ${batch} is gone`);
    else if (data.toString() !== text) {
      const now = parse(data) as CommitDocument | undefined;
      report(
        'commit-replaced',
        `the commit of ${batch} by ${document.engine} was replaced by one of ${now?.engine ?? 'nobody'}`,
      );
    }
    const own = view.attempts.get(`${batch}/${document.token}`);
    const rows = new Set(own?.lines.map(({ row }) => row));
    if (rows.size !== document.rows || own?.lines.length !== document.rows) {
      report(
        'commit-rows',
        `${batch} is committed with ${document.rows} rows and has ${rows.size}`,
      );
    }
  }
}

/** The run completed, or was cancelled when that was asked for; so says the command line that saw its end. */
function checkEnd(subject: Subject, report: Report): void {
  const { status, view, cancelled, runId } = subject;
  if (status !== 'COMPLETED') {
    report('run-failed', `${inferenceWorkflowId(runId)} ended as ${status ?? 'unknown'}`);
  }
  const state = view.manifest?.state;
  if (state !== undefined && state !== 'completed' && !(cancelled && state === 'cancelled')) {
    report('run-state', `the manifest says ${state}`);
  }
  const { exitCode, output } = subject;
  const failed = state !== 'completed' || (view.manifest?.failed ?? 0) > 0;
  if (exitCode !== (failed ? 1 : 0)) {
    const said = output.at(-1)?.slice(-LAST_WORDS) ?? '';
    report('exit-code', `the command line ended with ${exitCode}: ${said}`);
  }
}

function checkOrder(files: readonly ResultLine[][], ids: readonly string[], report: Report): void {
  const place = new Map(ids.map((id, index) => [id, index]));
  for (const file of files) {
    const places = file.map(({ custom_id: id }) => place.get(id ?? '') ?? -1);
    const wrong = places.some((at, index) => index > 0 && at < (places[index - 1] ?? -1));
    if (wrong) report('order', 'the lines are not in input order');
  }
}

function checkAnswers(subject: Subject, output: readonly ResultLine[], report: Report): void {
  const answers = new Answers(subject.workload);
  const wrong = output.flatMap(({ custom_id: id, response, error }) => {
    const problem =
      response?.status_code === 200 && error === null
        ? answers.problem(id ?? '', response.body)
        : 'it is no answer';
    return problem === undefined ? [] : [`${id}: ${problem}`];
  });
  if (wrong.length > 0) report('wrong-answer', `${wrong.length} answers are wrong: ${some(wrong)}`);
}

/** What people open is what the manifest says. */
async function checkPublished(
  view: RunView,
  manifest: ManifestDocument,
  report: Report,
): Promise<void> {
  for (const name of ['output', 'errors'] as const) {
    const data = await view.reader.read(view.key(`${name}.jsonl`));
    if (data === undefined || sha256(data) !== manifest[name].sha256)
      report('published', `${name}.jsonl is not what the manifest says`);
  }
}

/** Before its output is assembled a cancelled run has seen each commit that is older than this (ms). */
const SETTLED_MS = 5_000;

/**
 * Error lines are those that are expected: of poisoned rows, and after a cancellation of rows whose batches were not
 * committed by then.
 */
function checkErrors(subject: Subject, errors: readonly ResultLine[], report: Report): void {
  const { poisoned, rows } = subject.workload;
  const { commits, batches, seenAt } = subject.view;
  const settled = (seenAt.manifest ?? 0) - SETTLED_MS;
  const done = new Set(
    batches
      .filter(({ name }) => (commits.get(name)?.seenAt ?? Number.POSITIVE_INFINITY) < settled)
      .flatMap(({ firstRow, rows: count }) => rows.slice(firstRow, firstRow + count))
      .map(({ customId }) => customId),
  );
  const unexpected = errors
    .filter(({ custom_id: id }) => !poisoned.has(id ?? ''))
    .filter(({ custom_id: id, error }) => {
      return !(subject.cancelled && error?.code === 'batch_cancelled' && !done.has(id ?? ''));
    });
  if (unexpected.length > 0) {
    const [first] = unexpected;
    report(
      'innocent-failed',
      `${unexpected.length} rows failed that should not: ${first?.custom_id} (${first?.error?.code ?? first?.response?.status_code})`,
    );
  }
  if (subject.cancelled) return;
  const failed = new Set(errors.map(({ custom_id: id }) => id));
  const survived = [...poisoned].filter((id) => !failed.has(id));
  if (survived.length > 0)
    report('poison-answered', `poisoned rows were answered: ${some(survived)}`);
}
