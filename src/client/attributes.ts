import type { Client } from '@temporalio/client';
import type { SearchAttributePair } from '@temporalio/common';
import proto from '@temporalio/proto';

import { ATTRIBUTE, attributePairs, type AttributeValues } from '../contracts/search-attributes.js';

/** One question to the server. */
const ANSWER_MS = 5_000;
/** A namespace may get its attributes while a worker runs; starts are too frequent to ask for each. */
const ASK_AGAIN_MS = 300_000;

const { IndexedValueType } = proto.temporal.api.enums.v1;
const TYPE = {
  KEYWORD: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
  INT: IndexedValueType.INDEXED_VALUE_TYPE_INT,
} as const;

const asked = new WeakMap<object, { readonly at: number; readonly known: Promise<boolean> }>();

/**
 * Whether the namespace has all of Rankflow's search attributes, each of its type. False when the server does not say
 * so: a workflow with an attribute that its namespace does not have could not be started.
 */
export async function knowsAttributes(client: Client): Promise<boolean> {
  const last = asked.get(client.connection);
  if (last !== undefined && Date.now() - last.at < ASK_AGAIN_MS) return last.known;
  const known = ask(client);
  asked.set(client.connection, { at: Date.now(), known });
  return known;
}

async function ask(client: Client): Promise<boolean> {
  const { namespace } = client.options;
  try {
    const { customAttributes } = await client.withDeadline(Date.now() + ANSWER_MS, async () =>
      client.connection.operatorService.listSearchAttributes({ namespace }),
    );
    return Object.values(ATTRIBUTE).every(
      ({ name, type }) => customAttributes[name] === TYPE[type],
    );
  } catch {
    return false;
  }
}

/**
 * What to add to the options of a start, so that the workflow is found by these values and keeps them up to date.
 * Nothing where the namespace has no such attributes.
 */
export async function startAttributes(
  client: Client,
  values: AttributeValues,
): Promise<{ typedSearchAttributes?: SearchAttributePair[] }> {
  return (await knowsAttributes(client)) ? { typedSearchAttributes: attributePairs(values) } : {};
}
