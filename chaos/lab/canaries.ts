import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';

import { type Secret, findLeaks, findLeaksInFiles } from '../checker/leaks.js';
import type { Violation } from '../checker/violation.js';
import type { Home } from './home.js';
import type { Stack } from './stack.js';

/** Name of the variable with the token of the model hub; only the name may appear anywhere. */
const HUB_TOKEN = 'CHAOS_HUB_TOKEN';

/** Texts that must not be found outside the store, and the search for them. */
export class Canaries {
  /** In every prompt. */
  readonly prompt = `canary${randomBytes(6).toString('hex')}`;
  readonly violations: Violation[] = [];
  /** More folders with logs. */
  readonly logFolders = new Set<string>();
  readonly #hubToken = `hf_${randomBytes(12).toString('hex')}`;
  readonly #clusterTokens = new Set<string>();
  #searched = 0;

  /** @param more other texts */
  constructor(private readonly more: readonly Secret[] = []) {}

  /** Variables that hold a secret. */
  get environment(): Record<string, string> {
    return { [HUB_TOKEN]: this.#hubToken };
  }

  /** Flags of `rankflow run` that make an engine read a secret. */
  get flags(): string[] {
    return ['--hf-token-env', HUB_TOKEN];
  }

  /** Searches the logs of the stack and of its clusters, and Temporal's file, as they are now. */
  async searchLogs(stack: Stack, clusters: Iterable<string>): Promise<void> {
    const names = [...clusters];
    this.#learnTokens(stack.home, names);
    const places = [
      ...['logs', 'stack'].map((folder) => stack.home.file(folder)),
      ...names.flatMap((cluster) =>
        stack.nodes(cluster).map((node) => stack.home.file('clusters', cluster, `${node}.log`)),
      ),
      ...this.logFolders,
    ];
    for (const place of places) await this.#searchFiles(place);
    for (const cluster of names) await this.searchNodes(stack, cluster);
    if (this.#searched === 0) {
      this.#add({ invariant: 'I7', code: 'nothing-searched', message: 'no log was there' });
    }
  }

  /** Searches what Ray's nodes and engines have logged so far: the logs of a lost node go with its folder. */
  async searchNodes(stack: Stack, cluster: string): Promise<void> {
    this.#learnTokens(stack.home, [cluster]);
    await this.#searchFiles(stack.sessionFolder(cluster));
  }

  async #searchFiles(place: string): Promise<void> {
    const { files, violations } = await findLeaksInFiles(place, this.#texts());
    this.#searched += files;
    for (const leak of violations) this.#add(leak);
  }

  /** Searches bytes that are in memory. */
  search(bytes: Uint8Array, where: string): void {
    for (const leak of findLeaks(bytes, where, this.#texts())) this.#add(leak);
  }

  /** A cluster's token is made when it comes up and goes with it. */
  #learnTokens(home: Home, clusters: readonly string[]): void {
    for (const cluster of clusters) {
      const file = home.file('clusters', cluster, 'token');
      if (existsSync(file)) this.#clusterTokens.add(readFileSync(file, 'utf8').trim());
    }
  }

  #texts(): Secret[] {
    const secret = (name: string, text: string): Secret => ({ what: 'secret', name, text });
    return [
      { what: 'prompt', name: 'a prompt', text: this.prompt },
      secret('the token of the model hub', this.#hubToken),
      ...[...this.#clusterTokens].map((text) => secret('the token of a Ray cluster', text)),
      ...this.more,
    ];
  }

  #add(violation: Violation): void {
    if (this.violations.some(({ message }) => message === violation.message)) return;
    this.violations.push(violation);
  }
}
