import { Context } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';

import type {
  ControlActivities,
  EngineActivities,
  PythonActivities,
  RayNode,
} from '../../src/contracts/activities.js';
import type { FleetSpec, ObservedEngine } from '../../src/contracts/fleet.js';
import { engineQueue } from '../../src/contracts/names.js';
import type { DrainInput } from '../../src/contracts/preemption.js';
import type { Harness } from './harness.js';
import type { Worker } from '@temporalio/worker';

export const ADDRESS = {
  name: 'ray',
  address: '127.0.0.1:6399',
  dashboardUrl: 'http://127.0.0.1:8265',
};

export const rayNode = (change: Partial<RayNode> = {}): RayNode => ({
  nodeId: 'a'.repeat(40),
  name: 'worker-1',
  ip: '127.0.0.2',
  head: false,
  alive: true,
  cpus: 2,
  gpus: 0,
  ...change,
});

/**
 * Ray with engines that load at once: actors as a table, each ALIVE one with a real worker for its own queue. An
 * engine takes one CPU of the first node that has one free; where none has, it is pending.
 */
export class FakeRay {
  nodes: RayNode[] = [rayNode()];
  /** Nodes that the cluster's workflow is about to start again. */
  missingNodes = 0;
  /** Nodes that are drained in Ray: nothing is placed there. */
  readonly cordoned = new Set<string>();
  /** Nodes that are cordoned by the cluster's workflow: what is placed is told to leave them out. */
  readonly unschedulable = new Set<string>();
  /** Nodes that the actor of each slot was told to leave out, for as long as it lives. */
  readonly #avoids = new Map<number, readonly string[]>();
  /** Index with which each slot was started last. */
  readonly indexes = new Map<number, number>();
  reachable = true;
  /** Batches that wait for an engine; a fleet that neither scales nor stops by itself is not told. */
  backlog = 0;
  /** Counts them instead. */
  countBacklog: (spec: FleetSpec) => Promise<number | undefined> = async () => this.backlog;
  /** Batches that an engine says that it works on. */
  readonly busy = new Map<number, number>();
  readonly actors = new Map<number, ObservedEngine>();
  readonly executed: string[] = [];
  /** What is waited for before the engines of a fleet are seen. */
  onLook: (spec: FleetSpec) => Promise<void> = async () => {};
  /** What the canary of a slot does; the default answers. */
  onCanary: (slot: number, incarnation: string) => Promise<void> = async () => {};
  /** What the drain of a slot does before it answers; the default answers. */
  onDrain: (slot: number, input: DrainInput) => Promise<void> = async () => {};
  readonly #workers = new Map<number, Worker>();
  #pid = 100;

  constructor(private readonly harness: Harness) {}

  readonly observeFleet: ControlActivities['observeFleet'] = async ({ spec }) => {
    await this.onLook(spec);
    const backlog = await this.countBacklog(spec);
    return this.reachable
      ? {
          reachable: true,
          nodes: this.nodes,
          engines: [...this.actors.values()],
          missingNodes: this.missingNodes,
          unschedulable: [...this.unschedulable],
          ...((spec.scaling ?? spec.idleTimeoutSeconds) !== undefined &&
            backlog !== undefined && { backlog }),
        }
      : { reachable: false, nodes: [], engines: [], problem: 'fetch failed' };
  };

  readonly executeFleetPlan: PythonActivities['executeFleetPlan'] = async (input) => {
    const { fleet, start, stop, restart, indexes, drained, avoid = [] } = input;
    for (const [position, slot] of start.entries()) {
      this.executed.push(`start ${slot}`);
      this.#avoids.set(slot, avoid);
      this.indexes.set(slot, indexes?.[position] ?? slot);
      await this.place(fleet, slot, 0);
    }
    for (const slot of stop) {
      this.executed.push(`stop ${slot}${drained?.includes(slot) ? ' (drained)' : ''}`);
      await this.kill(slot);
      this.actors.delete(slot);
    }
    for (const slot of restart) {
      this.executed.push(`restart ${slot}`);
      await this.crash(fleet, slot);
    }
    return { started: start, stopped: stop, restarted: restart };
  };

  /** A process dies and Ray restarts it: another incarnation, counted as a restart. */
  async crash(fleet: FleetSpec, slot: number): Promise<void> {
    const restarts = (this.actors.get(slot)?.restarts ?? 0) + 1;
    await this.kill(slot);
    await this.place(fleet, slot, restarts);
  }

  /** Places the actors that wait, as Ray does when a node has room. */
  async placePending(fleet: FleetSpec): Promise<void> {
    for (const { slot, actorState } of [...this.actors.values()]) {
      if (actorState === 'PENDING_CREATION') await this.place(fleet, slot, 0);
    }
  }

  /** Ray gives an actor up. */
  async die(slot: number): Promise<void> {
    await this.kill(slot);
    this.actors.set(slot, { slot, actorState: 'DEAD', restarts: 0, deathCause: 'node lost' });
  }

  async close(): Promise<void> {
    for (const slot of this.#workers.keys()) await this.kill(slot);
  }

  private async place(fleet: FleetSpec, slot: number, restarts: number): Promise<void> {
    const nodeId = this.roomFor(slot);
    const avoids = [...(this.#avoids.get(slot) ?? [])];
    if (nodeId === undefined) {
      this.actors.set(slot, { slot, actorState: 'PENDING_CREATION', restarts, avoids });
      return;
    }
    const incarnation = `${nodeId.slice(0, 8)}-${(this.#pid += 1)}`;
    const canary: EngineActivities['canary'] = async ({ specHash }) => {
      if (specHash !== fleet.specHash) throw ApplicationFailure.nonRetryable('', 'ModelMismatch');
      await this.onCanary(slot, incarnation);
      const batches = this.busy.get(slot) ?? 0;
      return {
        engine: `slot-${slot}`,
        loadSeconds: 1,
        maxModelLen: 2048,
        vllmVersion: '0',
        batches,
        metrics: `10.0.0.${slot + 1}:9500`,
      };
    };
    const drain: EngineActivities['drain'] = async (input) => {
      // An engine that is killed meanwhile does not answer.
      await Promise.race([this.onDrain(slot, input), Context.current().cancelled]);
      return { engine: `slot-${slot}`, waitingRows: 0, cutRows: 0, seconds: 0 };
    };
    const queue = engineQueue(fleet.name, fleet.specHash, slot, incarnation);
    this.#workers.set(slot, await this.harness.serve(queue, { canary, drain }));
    this.actors.set(slot, { slot, actorState: 'ALIVE', incarnation, nodeId, restarts, avoids });
  }

  private roomFor(slot: number): string | undefined {
    const others = [...this.actors.values()].filter(
      (actor) => actor.slot !== slot && actor.actorState === 'ALIVE',
    );
    const room = this.nodes.find(({ nodeId, alive, cpus }) => {
      const used = others.filter((actor) => actor.nodeId === nodeId).length;
      const closed = this.cordoned.has(nodeId) || this.#avoids.get(slot)?.includes(nodeId);
      return alive && !closed && used < cpus;
    });
    return room?.nodeId;
  }

  private async kill(slot: number): Promise<void> {
    const worker = this.#workers.get(slot);
    this.#workers.delete(slot);
    if (worker !== undefined) await this.harness.end(worker);
  }
}
