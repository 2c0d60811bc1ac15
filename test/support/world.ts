import {
  ensureCluster,
  ensureFleet,
  stopCluster,
  stopFleet,
} from '../../src/activities/entities.js';
import { startAttributes } from '../../src/client/attributes.js';
import type { ClusterObservation } from '../../src/contracts/activities.js';
import type { InferenceInput } from '../../src/contracts/inference.js';
import {
  CONTROL_QUEUE,
  PYTHON_QUEUE,
  WORKFLOW,
  fleetQueue,
  inferenceWorkflowId,
} from '../../src/contracts/names.js';
import { runAttributes } from '../../src/contracts/search-attributes.js';
import { ADDRESS, FakeRay, rayNode } from './fake-cluster.js';
import { FakeRun, SPEC_HASH, fakeSpec } from './fake-run.js';
import type { Harness, ServedBuild } from './harness.js';

type Python = FakeRun['python'];

/** All workflows and the calls between them as they really are; only Ray, the store and vLLM are made up. */
export class World {
  run = new FakeRun([1]);
  ray: FakeRay;
  /** Engines of fleets of other names than `models`. */
  readonly others = new Map<string, FakeRay>();
  headRuns = false;
  headsStarted = 0;

  private constructor(private readonly harness: Harness) {
    this.ray = new FakeRay(harness);
  }

  /**
   * @param others more activities of the control worker
   * @param build that the control worker is of; absent: it is unversioned
   */
  static async start(harness: Harness, others: object = {}, build?: ServedBuild): Promise<World> {
    const world = new World(harness);
    await harness.serve(CONTROL_QUEUE, { ...world.control(), ...others }, undefined, build);
    await harness.serve(PYTHON_QUEUE, world.python());
    await harness.serve(fleetQueue('models', SPEC_HASH), {
      generateBatch: async (input: Parameters<FakeRun['generateBatch']>[0]) =>
        world.run.generateBatch(input),
    });
    return world;
  }

  /** Activities of a control worker. */
  control(): object {
    return { ensureCluster, ensureFleet, stopCluster, stopFleet, ...this.host() };
  }

  /** A fresh Ray for the next test. */
  async reset(): Promise<void> {
    await this.ray.close();
    for (const ray of this.others.values()) await ray.close();
    this.others.clear();
    this.ray = new FakeRay(this.harness);
    this.headsStarted = 0;
  }

  async infer(runId: string, keep = false, change: Partial<InferenceInput> = {}) {
    const input: InferenceInput = {
      run: fakeSpec(runId, this.run.batches.length),
      specHash: SPEC_HASH,
      cluster: { name: 'ray', nodes: { provider: 'local', workers: 0 } },
      fleet: { name: 'models', engines: 1, maxConcurrentBatches: 2 },
      affinity: 'pull',
      keep,
      ...change,
    };
    return this.harness.client.workflow.start(WORKFLOW.inference, {
      workflowId: inferenceWorkflowId(runId),
      taskQueue: CONTROL_QUEUE,
      args: [input],
      ...(await startAttributes(this.harness.client, runAttributes(input))),
    });
  }

  async isUp(workflowId: string): Promise<boolean> {
    const { status } = await this.harness.client.workflow.getHandle(workflowId).describe();
    return status.name === 'RUNNING';
  }

  /** What is seen of the cluster that the runs are on. */
  observeCluster(): ClusterObservation {
    return {
      reachable: this.headRuns,
      nodes: this.headRuns ? [rayNode({ name: 'head', head: true })] : [],
      processes: this.headRuns ? [{ name: 'head', running: true, ageSeconds: 1 }] : [],
      ...(this.headRuns && { address: ADDRESS }),
    };
  }

  private rayOf(fleet: string): FakeRay {
    return this.others.get(fleet) ?? this.ray;
  }

  private host(): object {
    return {
      observeFleet: async (input: Parameters<FakeRay['observeFleet']>[0]) =>
        this.rayOf(input.spec.name).observeFleet(input),
      observeCluster: async () => this.observeCluster(),
      startLocalNode: async () => {
        this.headsStarted += 1;
        this.headRuns = true;
      },
      removeLocalCluster: async () => {
        this.headRuns = false;
      },
      endLostCluster: async () => ({ ended: false }),
    };
  }

  private python(): object {
    return {
      executeFleetPlan: async (input: Parameters<FakeRay['executeFleetPlan']>[0]) =>
        this.rayOf(input.fleet.name).executeFleetPlan(input),
      checkEngineArguments: async (input: Parameters<Python['checkEngineArguments']>[0]) =>
        this.run.python.checkEngineArguments(input),
      planRun: async (input: Parameters<Python['planRun']>[0]) => this.run.python.planRun(input),
      rankProgress: async (input: Parameters<Python['rankProgress']>[0]) =>
        this.run.python.rankProgress(input),
      finalizeRun: async (input: Parameters<Python['finalizeRun']>[0]) =>
        this.run.python.finalizeRun(input),
      checkStoreRoom: async (input: Parameters<Python['checkStoreRoom']>[0]) =>
        this.run.python.checkStoreRoom(input),
      checkStoreShared: async (input: Parameters<Python['checkStoreShared']>[0]) =>
        this.run.python.checkStoreShared(input),
    };
  }
}
