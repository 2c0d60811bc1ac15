import {
  ActivityCancellationType,
  ActivityFailure,
  CancellationScope,
  isCancellation,
  log,
  patched,
  proxyActivities,
} from '@temporalio/workflow';

import type {
  ClusterObservation,
  ControlActivities,
  NodeProblem,
  ObserveClusterInput,
} from '../contracts/activities.js';
import type { ClusterAddress, ClusterSpec, SshProvider } from '../contracts/cluster.js';
import { CONTROL_QUEUE } from '../contracts/names.js';
import type {
  ChangeNodesRequest,
  ChangeNodesResult,
  ClusterCarried,
  ClusterNodeStatus,
  Problem,
} from '../contracts/workflows.js';
import type { ClusterHistory } from './cluster-history.js';
import type { ClusterPlan } from './cluster-plan.js';
import { problemOf } from './failures.js';
import { Members } from './members.js';
import { HEAD } from './names.js';
import { A_FEW_TRIES } from './options.js';
import { sameValue } from './same-value.js';

type Control<K extends keyof ControlActivities> = Pick<ControlActivities, K>;

const control = proxyActivities<Control<'checkNodes' | 'endNode' | 'removeNodes' | 'drainNode'>>({
  taskQueue: CONTROL_QUEUE,
  // A node ends within a minute, and taking a cluster down ends the head after its workers.
  startToCloseTimeout: '5 minutes',
  // The loop looks and plans again anyway; a host that does not answer must not hold up the others.
  retry: { ...A_FEW_TRIES, nonRetryableErrorTypes: [] },
});

const starting = proxyActivities<Control<'startNode'>>({
  taskQueue: CONTROL_QUEUE,
  // Each step has a time-out of its own; the longest installs an environment, for an hour at most.
  startToCloseTimeout: '3 hours',
  // It heartbeats every 5 s: a control worker that was restarted takes over soon, and finds what it has done.
  heartbeatTimeout: '30 seconds',
  // Only for a worker that was lost: the nodes' troubles are counted and waited for here.
  retry: { ...A_FEW_TRIES, nonRetryableErrorTypes: [] },
  // The teardown that follows must not miss a process that is just being started.
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
});

/** A node is up in seconds; one that is not by then is having its environment installed. */
const LONG_START_MS = 60_000;

/** What a workflow task may ask for together is 4 MB, and a lock file has 0.4 MB. */
const MOST_BYTES = 2_000_000;

/** A start that is going on. */
interface Start {
  readonly since: number;
  readonly scope: CancellationScope;
  readonly done: Promise<void>;
}

/** The hosts of a cluster over ssh: which are its nodes, and what is done to them. */
export class SshNodes {
  readonly members: Members;
  #address: ClusterAddress | undefined;
  #blocked: readonly NodeProblem[] = [];
  /** Nodes that are wanted, are not there and have not failed. */
  #lacking: readonly string[] = [];
  readonly #starts = new Map<string, Start>();

  constructor(
    private readonly cluster: string,
    asked: SshProvider,
    private readonly history: ClusterHistory,
    carried?: ClusterCarried,
  ) {
    this.members = new Members(asked, carried?.members);
    this.#address = carried?.address;
  }

  /** The cluster with its nodes as updates have changed them. */
  private get whole(): ClusterSpec {
    return { name: this.cluster, nodes: this.members.everyNode };
  }

  /** The cluster with the hosts that it is to have now. */
  get present(): ClusterSpec {
    return { name: this.cluster, nodes: this.members.nodes };
  }

  /** Whether somebody asks for the cluster as it was changed, such as with the file that `cluster add` was given. */
  isAs(asked: ClusterSpec): boolean {
    return sameValue(byName(asked), byName(this.present));
  }

  /** Without what only an installation needs: a lock file in every look would fill the history. */
  private get spec(): ClusterSpec {
    const { everyNode } = this.members;
    const { requirements: _text, conda: _yaml, ...environment } = everyNode.environment;
    return { name: this.cluster, nodes: { ...everyNode, environment } };
  }

  get observeInput(): ObserveClusterInput {
    const address = this.#address;
    return { spec: this.spec, nodes: this.members.watched, ...(address && { address }) };
  }

  /** Why the cluster is not as wanted, once there is nothing left to try; undefined while there is. */
  get blocked(): Problem | undefined {
    if (this.#blocked.length === 0) return undefined;
    const lines = this.#blocked.map(({ problem }) => `  ${problem.message}`);
    const message = [`cluster ${this.cluster} lacks nodes that do not start:`, ...lines].join('\n');
    return { type: 'ClusterStartFailed', message };
  }

  /**
   * Looks at all hosts before anything is started; a spare takes the place of one that is not fit.
   *
   * @returns why the cluster cannot be brought up, with the problems of all hosts
   */
  async check(): Promise<Problem | undefined> {
    const checked = new Set<string>();
    const found: NodeProblem[] = [];
    for (;;) {
      const nodes = [HEAD, ...this.members.active].filter((name) => !checked.has(name));
      if (nodes.length === 0) break;
      const options = { summary: `Check the hosts of ${nodes.join(', ')}` };
      const input = { spec: this.whole, nodes };
      const problems = await control.checkNodes.executeWithOptions(options, [input]);
      for (const name of nodes) checked.add(name);
      for (const { node, problem } of problems) {
        found.push({ node, problem });
        this.members.troubles.fail(node, problem, Date.now());
        this.history.note(`is not fit: ${problem.message}`, Date.now(), node);
      }
      this.settle();
    }
    if (this.members.stuck(Date.now()).length === 0) return undefined;
    const lines = found.map(({ problem }) => `  ${problem.message}`);
    const message = `cluster ${this.cluster} cannot be brought up:`;
    return { type: 'ClusterStartFailed', message: [message, ...lines].join('\n') };
  }

  /** Takes in what a look has shown. */
  learn(rows: readonly ClusterNodeStatus[], observation: ClusterObservation): void {
    const now = Date.now();
    this.#address = observation.address ?? this.#address;
    const leaving = new Set(this.members.leaving);
    for (const name of this.history.see(rows, now)) {
      if (leaving.has(name)) continue;
      const state = rows.find((row) => row.name === name)?.state ?? 'gone';
      const problem: Problem = {
        type: 'ClusterUnavailable',
        message: `${name}: was lost (${state})`,
      };
      this.members.troubles.note(name, problem, now);
    }
    for (const { name, state } of rows)
      if (state === 'alive') this.members.troubles.well(name, now);
    this.members.endDrains(observation, now);
    this.settle();
    // What is to go need not be made ready first.
    for (const name of this.members.leaving) this.#starts.get(name)?.scope.cancel();
    const stuck = this.members.stuck(now);
    const named = new Set(stuck.map(({ node }) => node));
    const wanted = [HEAD, ...this.members.active];
    this.#lacking = wanted.filter(
      (name) => !named.has(name) && !rows.some((row) => row.name === name && row.state === 'alive'),
    );
    // Nothing can join while there is no head.
    const hopeless = this.#lacking.length === 0 || (named.has(HEAD) && patched('blocked-by-head'));
    this.#blocked = hopeless ? stuck : [];
  }

  /** Whether nodes are being started beside the loop. */
  get isStarting(): boolean {
    return this.#starts.size > 0;
  }

  /** Whether all that is lacking has been starting for long, so that it need not be looked for every few seconds. */
  get waitsLong(): boolean {
    const long = Date.now() - LONG_START_MS;
    const since = this.#lacking.map((name) => this.#starts.get(name)?.since ?? Infinity);
    return since.length > 0 && since.every((at) => at < long);
  }

  /** Gives nodes that have failed another chance, as somebody asks for the cluster again. */
  forgive(): void {
    this.members.forgive();
    this.#blocked = [];
  }

  private settle(): void {
    for (const { node, what } of this.members.settle(Date.now())) {
      this.history.note(what, Date.now(), node);
    }
  }

  /**
   * Ends nodes and begins to start others. A start may install an environment for an hour, in which a head may be lost
   * or the time of a drain be over: it goes on beside, and its node is left alone until then.
   *
   * @param started is told of each start that is over, with its problem
   * @returns the last problem met, or undefined when all of it worked
   */
  async execute(
    plan: ClusterPlan,
    started: (problem: Problem | undefined) => void,
  ): Promise<Problem | undefined> {
    const { spec } = this;
    const end = plan.end.filter((node) => !this.#starts.has(node));
    const ending = await Promise.allSettled(
      end.map(async (node) => {
        await control.endNode.executeWithOptions({ summary: `End node ${node}` }, [{ spec, node }]);
        this.members.ended(node);
      }),
    );
    const ended = end.filter((_, index) => ending[index]?.status === 'fulfilled');
    const problems = ending.map((result, index) => this.problemIn(result, end[index]));
    // What did not end cannot be started afresh.
    const nodes = plan.start.filter(
      (node) => !this.#starts.has(node) && (!plan.end.includes(node) || ended.includes(node)),
    );
    if (patched('start-nodes-beside')) {
      for (const node of this.affordable(nodes)) this.startBeside(node, started);
    } else {
      const starts = await Promise.allSettled(nodes.map(async (node) => this.start(node)));
      problems.push(...starts.map((result, index) => this.problemIn(result, nodes[index])));
    }
    return problems.findLast((problem) => problem !== undefined);
  }

  /** As many of the nodes as may be started at once: each is told all that its environment is made of. */
  private affordable(nodes: readonly string[]): readonly string[] {
    const most = Math.max(1, Math.floor(MOST_BYTES / JSON.stringify(this.whole).length));
    // The others are started at the next look.
    return nodes.length > most && patched('few-large-starts-at-once')
      ? nodes.slice(0, most)
      : nodes;
  }

  private async start(node: string): Promise<void> {
    const address = this.#address;
    await starting.startNode.executeWithOptions({ summary: `Start node ${node}` }, [
      { spec: this.whole, node, ...(node !== HEAD && address && { address }) },
    ]);
  }

  private startBeside(node: string, started: (problem: Problem | undefined) => void): void {
    const scope = new CancellationScope();
    const follow = async (): Promise<void> => {
      const [result] = await Promise.allSettled([scope.run(async () => this.start(node))]);
      this.#starts.delete(node);
      // How a start ends that nobody wants any more is no trouble of its node.
      started(scope.consideredCancelled ? undefined : this.problemIn(result, node));
    };
    this.#starts.set(node, { since: Date.now(), scope, done: follow() });
  }

  /** Ends what is being started beside, and waits until nothing of it can come up any more. */
  async endStarts(): Promise<void> {
    const starts = [...this.#starts.values()];
    for (const { scope } of starts) scope.cancel();
    await Promise.all(starts.map(async ({ done }) => done));
  }

  private problemIn(result: PromiseSettledResult<void>, node = ''): Problem | undefined {
    if (result.status === 'fulfilled') return undefined;
    const { reason } = result as { reason: unknown };
    if (!(reason instanceof ActivityFailure) || isCancellation(reason)) throw reason;
    const problem = problemOf(reason);
    log.error('a node did not start or end', { node, ...problem });
    this.history.note(problem.message.split('\n')[0] ?? '', Date.now(), node);
    this.members.troubles.note(node, problem, Date.now());
    return problem;
  }

  /** Changes which hosts are nodes. Those to be drained are cordoned in Ray, and their engines leave. */
  async change(
    request: ChangeNodesRequest,
    nodes: readonly ClusterNodeStatus[],
  ): Promise<ChangeNodesResult> {
    const before = new Set(this.members.draining);
    const asNamed = request.add === undefined || patched('added-takes-a-place');
    const { active, spares } = this.members.change(request, Date.now(), asNamed);
    this.history.note(`asked for: ${describe(request)}`, Date.now());
    const address = this.#address;
    const drains = nodes.flatMap(({ name, nodeId }) => {
      const deadline = this.members.deadlineOf(name);
      if (address === undefined || nodeId === undefined || deadline === undefined) return [];
      if (before.has(name)) return [];
      const seconds = Math.max(1, Math.round((deadline - Date.now()) / 1000));
      return control.drainNode.executeWithOptions({ summary: `Drain node ${name}` }, [
        { address, nodeId, seconds },
      ]);
    });
    for (const result of await Promise.allSettled(drains)) {
      if (result.status === 'rejected' && !(result.reason instanceof ActivityFailure))
        throw result.reason;
      // At its deadline it is ended all the same.
      if (result.status === 'rejected')
        this.history.note(problemOf(result.reason).message, Date.now());
    }
    return { active, spares };
  }

  /** Ends everything. Returns the nodes whose hosts do not answer. */
  async remove(): Promise<readonly NodeProblem[]> {
    const input = { spec: this.spec, nodes: this.members.watched };
    const options = { summary: 'End all nodes and remove their files on their hosts' };
    return control.removeNodes.executeWithOptions(options, [input]);
  }

  carried(): Partial<ClusterCarried> {
    return { ...this.members.carried(), ...(this.#address && { address: this.#address }) };
  }
}

/** The order of hosts says which are the spares at first, and nothing of a cluster that is up. */
function byName({ name, nodes }: ClusterSpec): unknown {
  if (nodes.provider !== 'ssh') return { name, nodes };
  const workers = nodes.workers.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  return { name, nodes: { ...nodes, workers } };
}

function describe({ add = [], remove = [], drain, count }: ChangeNodesRequest): string {
  return [
    ...add.map(({ name }) => `add ${name}`),
    ...remove.map((name) => `remove ${name}`),
    ...(drain?.nodes ?? []).map((name) => `drain ${name}`),
    ...(count === undefined ? [] : [`${count} worker nodes`]),
  ].join(', ');
}
