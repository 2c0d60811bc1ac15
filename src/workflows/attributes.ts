import { patched, upsertSearchAttributes, workflowInfo } from '@temporalio/workflow';
import type { SearchAttributePair } from '@temporalio/common';

import { ATTRIBUTE, attributePairs, type AttributeValues } from '../contracts/search-attributes.js';

/**
 * The search attributes of a workflow. One that was started with them keeps them up to date, another one has none: so
 * a namespace that does not know them costs nothing, and histories of older versions replay.
 */
export class Attributes {
  readonly #known = new Map<string, unknown>();
  /** Whoever starts a workflow asks the server first, and says so in its first event. */
  readonly #kept: boolean;

  /**
   * @param patch of workflows that came to have them later: whoever starts one may know them when the build that
   *   runs it does not yet
   */
  constructor(patch?: string) {
    for (const { key, value } of workflowInfo().typedSearchAttributes.getAll()) {
      this.#known.set(key.name, value);
    }
    this.#kept = this.#known.has(ATTRIBUTE.state.name) && (patch === undefined || patched(patch));
  }

  /** An event of the history for each call that changes something: call it when a state changes. */
  set(values: AttributeValues): void {
    if (!this.#kept) return;
    const changed = attributePairs(values).filter(
      ({ key, value }) => this.#known.get(key.name) !== value,
    );
    if (changed.length === 0) return;
    for (const { key, value } of changed) this.#known.set(key.name, value);
    upsertSearchAttributes(changed);
  }

  /** What to add to the options of a child, or of the workflow that continues this one. */
  startingWith(values: AttributeValues): { typedSearchAttributes?: SearchAttributePair[] } {
    return this.#kept ? { typedSearchAttributes: attributePairs(values) } : {};
  }
}
