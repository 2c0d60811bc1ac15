import { randomBytes } from 'node:crypto';
import { availableParallelism } from 'node:os';

import { paths } from '../dist/setup/paths.js';
import { NotPossible } from './faults/fault.js';
import type { Selection } from './faults/index.js';
import { POISON } from './faults/run.js';
import { Bench, type BenchOptions } from './lab/bench.js';
import { Network } from './network/network.js';
import { RayOnHosts } from './network/ray.js';
import { Random } from './random.js';
import { mergeReports } from './report/merge.js';
import type { Report } from './report/record.js';
import { S3Server } from './s3/server.js';
import { type Complaints, controlsStage } from './stages/controls.js';
import { Goal } from './stages/goal.js';
import { HOSTS, SharedServer, networkStage, serverOf } from './stages/network.js';
import { simulatedStage } from './stages/simulated.js';
import { vllmStage } from './stages/vllm.js';

export interface CampaignOptions {
  /** Most faults of each kind of engine. */
  readonly faults: number;
  readonly minutes: number;
  readonly seed: number;
  readonly engines: 'simulated' | 'vllm' | 'both';
  /** Whether nodes are put on hosts of their own as well, and cut off from one another. */
  readonly partitions: boolean;
  readonly selection: Selection;
  /** Each fault once, in the phase where it hurts most, and then no more. */
  readonly short: boolean;
  readonly log: (line: string) => void;
}

/** Injects faults into real stacks and checks what must hold. Leaves nothing behind. */
export async function runCampaign(options: CampaignOptions): Promise<Report> {
  const { engines } = options;
  const reports: Report[] = [];
  if (engines !== 'vllm' && !isPartition(options)) reports.push(await simulatedCampaign(options));
  if (options.partitions) {
    const report = await partitionCampaign(options);
    if (report !== undefined) reports.push(report);
  }
  if (engines !== 'simulated') reports.push(await vllmCampaign(options));
  return { ...mergeReports(reports), seeds: [options.seed] };
}

const isPartition = ({ selection }: CampaignOptions): boolean =>
  selection.only?.startsWith('partition') ?? false;

export async function simulatedCampaign(options: CampaignOptions): Promise<Report> {
  const { log, selection, short } = options;
  const random = new Random(options.seed).fork('simulated');
  const s3 = await S3Server.start(paths.python, random.fork('s3'));
  try {
    const benchOptions = {
      backend: 'simulated',
      log,
      s3,
      environment: { ...s3.environment, RANKFLOW_FAULTS: JSON.stringify({ poison: POISON }) },
      secrets: [{ what: 'secret', name: 'the key of the bucket', text: s3.secretKey }],
    } as const;
    return await onBench(benchOptions, options, async (bench, goal) => {
      bench.onClose(async () => s3.close());
      await bench.stack.up();
      await simulatedStage({ bench, random, goal, selection, log, short });
    });
  } finally {
    await s3.close();
  }
}

/** The same faults and the same checker, with what guards rows switched off: it has to complain. */
export async function negativeControls({
  seed,
  minutes,
  log,
}: Pick<CampaignOptions, 'seed' | 'minutes' | 'log'>): Promise<Complaints> {
  let complaints: Complaints | undefined;
  const goal = { seed, faults: 0, minutes };
  const { violations } = await onBench({ backend: 'simulated', log }, goal, async (bench) => {
    await bench.stack.up();
    complaints = await controlsStage(bench, new Random(seed).fork('controls'));
  });
  if (complaints === undefined)
    throw new Error(violations.map(({ message }) => message).join('\n'));
  return complaints;
}

export async function vllmCampaign(options: CampaignOptions): Promise<Report> {
  const { log, selection, short } = options;
  const random = new Random(options.seed).fork('vllm');
  return onBench({ backend: 'vllm', log }, options, async (bench, goal) => {
    await bench.stack.up();
    await vllmStage({ bench, random, goal, selection, log, short });
  });
}

/** Partitions, between hosts that are network namespaces. Undefined where those may not be made. */
export async function partitionCampaign(options: CampaignOptions): Promise<Report | undefined> {
  const { log, selection, short } = options;
  const random = new Random(options.seed).fork('network');
  let network: Network;
  try {
    network = Network.create(HOSTS);
  } catch (error) {
    if (!(error instanceof NotPossible)) throw error;
    log(error.message);
    return undefined;
  }
  const token = randomBytes(32).toString('hex');
  const server = serverOf(network);
  const secrets = [{ what: 'secret', name: 'the token of the Ray cluster', text: token }] as const;
  try {
    return await onBench(
      { backend: 'simulated', log, server, secrets },
      options,
      async (bench, goal) => {
        bench.onClose(() => network.remove());
        const temporal = await SharedServer.start(bench.home, network);
        bench.onClose(async () => temporal.stop());
        await bench.stack.up();
        const ray = new RayOnHosts(bench.home, network, network.host('head'), token);
        bench.onClose(async () => ray.stop());
        bench.canaries.logFolders.add(ray.folder);
        await networkStage({ bench, random, goal, selection, log, short }, network, ray);
      },
    );
  } finally {
    network.remove();
  }
}

/** Runs one stage on a stack of its own, and takes everything down whatever happens. */
async function onBench(
  benchOptions: BenchOptions,
  { seed, faults, minutes }: Pick<CampaignOptions, 'seed' | 'faults' | 'minutes'>,
  stage: (bench: Bench, goal: Goal) => Promise<void>,
): Promise<Report> {
  const startedAt = new Date();
  const bench = new Bench(benchOptions);
  const interrupted = (): void => {
    void bench.abandon('interrupted').finally(() => process.exit(130));
  };
  process.once('SIGINT', interrupted).once('SIGTERM', interrupted);
  try {
    await stage(bench, new Goal(faults, startedAt.getTime() + minutes * 60_000));
    await bench.close();
  } catch (error) {
    await bench.abandon(error);
  } finally {
    process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
  }
  return {
    version: 1,
    seeds: [seed],
    startedAt: startedAt.toISOString(),
    seconds: Math.round((Date.now() - startedAt.getTime()) / 1000),
    cores: availableParallelism(),
    // A control, which is to fail, is no part of it.
    faults: bench.lab.struck
      .filter(({ trial }) => bench.runs.some(({ run }) => run === trial.runId))
      .map(({ record }) => record)
      .filter(({ missed }) => missed === undefined),
    runs: bench.runs,
    skipped: bench.lab.skipped,
    histories: bench.histories,
    violations: bench.violations,
  };
}
