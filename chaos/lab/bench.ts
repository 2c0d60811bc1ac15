import { decodedTokens } from '../checker/ledger.js';
import { checkReplay, downloadHistories } from '../checker/histories.js';
import type { Secret } from '../checker/leaks.js';
import { SharedMemory, checkLeftovers, checkOrphans, litterOf } from '../checker/leftovers.js';
import { checkRecovery } from '../checker/recovery.js';
import { type RowCounts, checkRows } from '../checker/rows.js';
import { type Redone, checkTokens } from '../checker/tokens.js';
import type { Violation } from '../checker/violation.js';
import type { RunRecord } from '../report/record.js';
import type { S3Server } from '../s3/server.js';
import { FolderReader, type StoreReader } from '../store/reader.js';
import { type Backend, makeWorkload } from '../workload.js';
import { Canaries } from './canaries.js';
import { Health } from './health.js';
import { Home } from './home.js';
import { Lab, type Struck } from './lab.js';
import { processesOf, signal } from './processes.js';
import { Stack } from './stack.js';
import { Trial } from './trial.js';

/** So long after it ended a fault may still cost rows: Ray drains a node for half a minute. */
const AFTER_MS = 60_000;

export interface BenchOptions {
  readonly backend: Backend;
  readonly log: (line: string) => void;
  /** More variables for the stack and its engines. */
  readonly environment?: Readonly<Record<string, string>>;
  /** A Temporal server that is not the stack's own, `host:port`. */
  readonly server?: string;
  /** More texts that must not leak. */
  readonly secrets?: readonly Secret[];
  /** A bucket for runs with a store in one; its variables have to be in `environment`. */
  readonly s3?: S3Server;
}

export interface TrialRequest {
  readonly scenario: string;
  readonly rows: number;
  readonly tokens: number;
  readonly fleet: string;
  readonly cluster: string;
  /** Flags of `rankflow run`. */
  readonly flags: readonly string[];
  readonly poison?: { readonly text: string; readonly rows: readonly number[] };
  /** Where its store is; default the data folder's. */
  readonly reader?: StoreReader;
  readonly store?: string;
  readonly lookMs?: number;
}

/** What the checker says of one run. */
export interface Judged {
  readonly violations: readonly Violation[];
  readonly counts: RowCounts;
  readonly redone: Redone;
}

/** A stack with a data folder of its own, from `rankflow up` to the search for what is left behind. */
export class Bench {
  readonly home: Home;
  readonly stack: Stack;
  readonly health: Health;
  readonly lab: Lab;
  readonly runs: RunRecord[] = [];
  readonly violations: Violation[] = [];
  readonly clusters = new Set<string>();
  /** By where they are. */
  readonly stores = new Map<string, StoreReader>();
  readonly canaries: Canaries;
  histories = 0;
  readonly #memory: SharedMemory;
  readonly #closers: (() => void | Promise<void>)[] = [];
  #runs = 0;

  constructor(private readonly options: BenchOptions) {
    this.canaries = new Canaries(options.secrets);
    this.home = new Home({ ...this.canaries.environment, ...options.environment });
    this.stack = new Stack(this.home, options.server);
    this.health = new Health(this.stack);
    this.#memory = new SharedMemory(this.home);
    const search = async (cluster: string) => this.canaries.searchNodes(this.stack, cluster);
    this.lab = new Lab(this.stack, this.health, options.backend, options.log, search);
    this.stores.set(this.home.file('store'), new FolderReader(this.home.file('store')));
  }

  /** Where simulated engines note what they decode, also of rows that are lost. */
  get ledger(): string {
    return this.home.file('ledger');
  }

  get backend(): Backend {
    return this.options.backend;
  }

  get s3(): S3Server | undefined {
    return this.options.s3;
  }

  /** Brings a local cluster up that stays. */
  async clusterUp(name: string, nodes: number): Promise<void> {
    this.expectCluster(name);
    await this.home.rankflow(
      ['cluster', 'up', name, '--nodes', `${nodes}`],
      this.stack.variables(),
    );
    this.health.clusters.add(name);
  }

  /** A cluster that a run brings up: what is left of it is looked for as well. */
  expectCluster(name: string): void {
    this.clusters.add(name);
  }

  /** Starts a run of the product on a fresh workload. */
  startTrial(request: TrialRequest): Trial {
    const runId = `${request.scenario}-${(this.#runs += 1)}`;
    const { backend } = this.options;
    const workload = makeWorkload({
      file: this.home.file(`${runId}.jsonl`),
      runId,
      rows: request.rows,
      backend,
      canary: this.canaries.prompt,
      tokens: request.tokens,
      ...(request.poison && { poison: request.poison }),
    });
    const store = request.store ?? this.home.file('store');
    const reader = request.reader ?? new FolderReader(store);
    this.stores.set(store, reader);
    const trial = new Trial({
      stack: this.stack,
      runId,
      workload,
      fleet: request.fleet,
      cluster: request.cluster,
      flags: ['--store', store, ...request.flags],
      reader,
      ...(request.lookMs !== undefined && { lookMs: request.lookMs }),
    });
    this.lab.trials.add(trial);
    if (request.flags.includes('--keep')) this.health.fleets.add(request.fleet);
    this.options.log(`run ${runId}: ${request.rows} rows on fleet ${request.fleet}`);
    return trial;
  }

  /**
   * Waits for the end of a run and checks it, and keeps both for the report.
   *
   * @returns what is wrong with it
   */
  async finish(trial: Trial, scenario: string, seconds: number): Promise<readonly Violation[]> {
    // Logs of nodes that are killed or taken down go with them: what there is now is searched now.
    await this.canaries.searchLogs(this.stack, this.clusters);
    const { violations, counts, redone } = await this.judge(trial, seconds);
    const manifest = trial.view.manifest;
    this.runs.push({
      run: trial.runId,
      scenario,
      backend: this.options.backend,
      state: manifest?.state ?? trial.status ?? 'unknown',
      seconds: Math.round(((trial.endedAt ?? Date.now()) - trial.startedAt) / 100) / 10,
      rows: trial.workload.rows.length,
      faults: this.lab.struck.filter((one) => one.trial === trial).length,
      succeeded: manifest?.succeeded ?? 0,
      failed: manifest?.failed ?? 0,
      ...{ lost: counts.lost, duplicated: counts.duplicated, torn: trial.view.violations.length },
      tokens: counts.tokens,
      redoneTokens: redone.seen,
      redoneTokensAtMost: this.#beyond(trial, counts.tokens) ?? redone.atMost,
      retries: trial.view.attempts.size - trial.view.commits.size,
    });
    this.violations.push(...violations);
    return violations;
  }

  /** Waits for the end of a run and checks it, without a place in the report: for what must fail. */
  async judge(trial: Trial, seconds: number): Promise<Judged> {
    const violations: Violation[] = [];
    try {
      await trial.end(seconds);
    } catch (error) {
      violations.push(trial.violation('I6', 'never-ended', (error as Error).message));
    }
    this.lab.trials.delete(trial);
    const { violations: rows, counts } = await checkRows(trial);
    const beyond = this.#beyond(trial, counts.tokens);
    // What a fault costs that lasts was not all in work when it struck.
    const momentary = !this.lab.struck.some((one) => lasts(one) && reaches(one, trial));
    const known = momentary && !trial.cancelled ? beyond : undefined;
    const { violations: tokens, redone } = checkTokens(trial, known);
    violations.push(...trial.violations(), ...rows, ...tokens);
    for (const text of trial.output) {
      this.canaries.search(Buffer.from(text), `the output of ${trial.runId}`);
    }
    const verdict =
      violations.length === 0 ? 'holds' : violations.map(({ code }) => code).join(', ');
    this.options.log(`run ${trial.runId} ended as ${trial.status ?? 'unknown'}: ${verdict}`);
    return { violations, counts, redone };
  }

  /** Tokens that were decoded beyond those of the answers that count, where engines keep a ledger. */
  #beyond({ runId }: Trial, counted: number): number | undefined {
    const decoded = decodedTokens(this.ledger, runId);
    return decoded === undefined ? undefined : Math.max(0, decoded - counted);
  }

  /** I4 of a store that goes before the others do. */
  async checkStore(folder: string): Promise<void> {
    this.stores.delete(folder);
    this.violations.push(...(await litterOf(new FolderReader(folder))));
  }

  /** Checks what can be checked only at the end, takes everything down, and looks for what is left. */
  async close(): Promise<void> {
    const { log } = this.options;
    await Promise.all(this.lab.struck.map(({ healing }) => healing));
    await this.#allWell();
    this.violations.push(...this.lab.violations, ...checkRecovery(this.lab.struck, this.health));
    const engines = async () => this.stack.engines();
    this.violations.push(...(await checkOrphans(this.home, engines)));
    await this.canaries.searchLogs(this.stack, this.clusters);
    log('replaying the histories');
    const histories = await downloadHistories(await this.stack.client());
    this.histories = histories.length;
    for (const { workflowId, bytes } of histories) {
      this.canaries.search(bytes, `the history of ${workflowId}`);
    }
    this.violations.push(...this.canaries.violations);
    this.violations.push(...(await checkReplay(histories)));
    await this.health.stop();
    // Buckets go with their server.
    const isBucket = (store: string): boolean => store.includes('://');
    for (const [store, reader] of this.stores)
      if (isBucket(store)) this.violations.push(...(await litterOf(reader)));
    log('taking everything down');
    await this.#takeDown();
    const folders = [...this.stores].filter(([store]) => !isBucket(store)).map(([, one]) => one);
    this.violations.push(
      ...(await checkLeftovers(this.stack, this.#memory, [...this.clusters], folders)),
    );
    if (this.violations.length === 0) this.home.remove();
    else log(`something does not hold; what there is to read is in ${this.home.folder}`);
  }

  /** What the last faults hit may still be coming back: it has its time. */
  async #allWell(): Promise<void> {
    const due = this.lab.struck
      .filter(({ fault: { scope }, trial }) => this.health.judges(scope, trial))
      .filter(({ fault: { scope }, trial, endedAt, strike }) => {
        return this.health.healedAt(endedAt, scope, trial, strike) === undefined;
      })
      .map(({ endedAt, record }) => endedAt + record.boundSeconds * 1000);
    await this.health.well((Math.max(0, ...due) - Date.now()) / 1000);
  }

  /** Takes everything down after something unexpected, as well as it goes. */
  async abandon(reason: unknown): Promise<void> {
    const message = reason instanceof Error ? (reason.stack ?? reason.message) : String(reason);
    this.violations.push({ invariant: 'I6', code: 'broken-off', message });
    this.options.log(`giving up; what there is to read is in ${this.home.folder}`);
    await this.health.stop();
    await this.#memory.left();
    for (const trial of this.lab.trials) signal(trial.command.pid, 'SIGKILL');
    await this.#takeDown().catch((trouble: unknown) => this.options.log(String(trouble)));
    for (const { pid } of processesOf(this.home.folder)) signal(pid, 'SIGKILL');
  }

  /**
   * Takes every step, whatever fails: what one of them leaves must not be left of the others too.
   *
   * @throws Error of the first step that failed
   */
  async #takeDown(): Promise<void> {
    const variables = this.stack.variables();
    const rankflow = (...args: string[]) => this.home.rankflow(args, variables);
    const steps = [
      ...[...this.health.fleets].map((fleet) => () => rankflow('fleet', 'stop', fleet)),
      ...[...this.clusters].map((cluster) => () => rankflow('cluster', 'down', cluster)),
      () => this.stack.down(),
      ...this.#closers.toReversed(),
    ];
    const troubles: unknown[] = [];
    for (const step of steps) {
      try {
        await step();
      } catch (trouble) {
        troubles.push(trouble);
      }
    }
    if (troubles.length > 0) throw troubles[0];
  }

  /** Something to be ended after the stack. */
  onClose(closer: () => void | Promise<void>): void {
    this.#closers.push(closer);
  }
}

const lasts = ({ fault, strike }: Struck): boolean =>
  fault.lasts === true || strike.heal !== undefined;

/** Whether a fault may have hit engines of a run while it went on, though it may be aimed at another run. */
function reaches({ fault, trial: aimedAt, endedAt }: Struck, trial: Trial): boolean {
  if (aimedAt === trial) return true;
  const shared =
    fault.scope === 'stack' ||
    fault.scope === 'cluster' ||
    (fault.scope === 'fleet' && aimedAt.fleet === trial.fleet);
  return shared && endedAt + AFTER_MS > trial.startedAt;
}
