import { readFileSync, renameSync, writeFileSync } from 'node:fs';

import { execa } from 'execa';

import { MARKER } from '../../src/activities/local/node-command.js';
import { markedProcesses } from '../../src/activities/local/marked-processes.js';
import { rayAuthEnvironment } from '../../src/activities/ray-state.js';
import { paths } from '../../src/setup/paths.js';
import type { ClusterStatus, FleetStatus } from '../../src/contracts/workflows.js';
import type { DataFolder } from './rankflow.js';

/** A local cluster and its fleet, as a user sees and a cloud treats them. */
export class Nodes {
  constructor(
    private readonly folder: DataFolder,
    private readonly cluster: string,
    private readonly fleetName: string,
  ) {}

  async fleet(): Promise<FleetStatus> {
    const { stdout } = await this.folder.rankflow(['fleet', 'status', this.fleetName, '--json']);
    return JSON.parse(stdout) as FleetStatus;
  }

  async status(): Promise<ClusterStatus> {
    const { stdout } = await this.folder.rankflow(['cluster', 'status', this.cluster, '--json']);
    return JSON.parse(stdout) as ClusterStatus;
  }

  /** Name of the node with the engine of a slot. */
  async ofEngine(slot: number): Promise<string> {
    const { slots } = await this.fleet();
    const nodeId = slots.find((one) => one.slot === slot)?.nodeId;
    const node = (await this.status()).nodes.find((one) => one.nodeId === nodeId);
    if (nodeId === undefined || node === undefined) throw new Error(`no node has slot ${slot}`);
    return node.name;
  }

  /** What a cloud does that is about to take a machine away: the node has so many seconds left. */
  giveNotice(node: string, seconds: number): void {
    const file = this.folder.file(`clusters/${this.cluster}/${node}.preempted`);
    writeFileSync(`${file}.new`, JSON.stringify({ deadline: seconds }));
    renameSync(`${file}.new`, file);
  }

  /** What an autoscaler does, or somebody by hand. */
  async drainInRay(nodeId: string, seconds: number): Promise<void> {
    const { address } = await this.status();
    if (address === undefined) throw new Error('the cluster has no address');
    const args = [
      ...['-m', 'ray.scripts.scripts', 'drain-node', '--address', address.address],
      ...['--node-id', nodeId, '--deadline-remaining-seconds', String(seconds)],
      ...['--reason', 'DRAIN_NODE_REASON_PREEMPTION', '--reason-message', 'drained by hand'],
    ];
    await execa(paths.python, args, { env: rayAuthEnvironment(address.tokenFile) });
  }

  /** Switches the machine off: SIGKILL for every process of the node, whatever group it is in. */
  kill(node: string): void {
    const record = this.folder.file(`clusters/${this.cluster}/${node}.json`);
    const { process: leader } = JSON.parse(readFileSync(record, 'utf8')) as {
      process: { pid: number };
    };
    const variables = readFileSync(`/proc/${leader.pid}/environ`, 'latin1').split('\0');
    const marker = variables.find((one) => one.startsWith(`${MARKER}=`))?.slice(MARKER.length + 1);
    if (marker === undefined) throw new Error(`node ${node} has no marker`);
    for (const pid of markedProcesses(marker)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended with one that was killed before it.
      }
    }
  }
}
