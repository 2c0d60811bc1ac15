import { defineSearchAttributeKey, type SearchAttributePair } from '@temporalio/common';

import type { FleetSpec } from './fleet.js';
import type { InferenceInput } from './inference.js';
import type { JobSpec } from './job.js';

/**
 * Typed search attributes of workflows: what Temporal's lists can be filtered by. A server with a SQL database has
 * room for three of the kind `INT` in a namespace.
 */
export const ATTRIBUTE = {
  model: defineSearchAttributeKey('RankflowModel', 'KEYWORD'),
  fleet: defineSearchAttributeKey('RankflowFleet', 'KEYWORD'),
  cluster: defineSearchAttributeKey('RankflowCluster', 'KEYWORD'),
  /** Of a run, fleet, cluster, scheduled run or job; see the status of each. */
  state: defineSearchAttributeKey('RankflowState', 'KEYWORD'),
  schedule: defineSearchAttributeKey('RankflowSchedule', 'KEYWORD'),
  /** Rows of a run, once it is planned. */
  rows: defineSearchAttributeKey('RankflowRows', 'INT'),
  /** Rows of a run without an answer, once it has ended. */
  failedRows: defineSearchAttributeKey('RankflowFailedRows', 'INT'),
} as const;

export interface AttributeValues {
  readonly model?: string;
  readonly fleet?: string;
  readonly cluster?: string;
  readonly state?: string;
  readonly schedule?: string;
  readonly rows?: number;
  readonly failedRows?: number;
}

/** What a run is found by from its start. */
export const runAttributes = ({ run, fleet, cluster }: InferenceInput): AttributeValues => ({
  model: run.model.model,
  fleet: fleet.name,
  cluster: cluster.name,
  state: 'validating',
});

/** What a fleet is found by from its start. */
export const fleetAttributes = (spec: FleetSpec): AttributeValues => ({
  model: spec.model.model,
  fleet: spec.name,
  cluster: spec.cluster.name,
  state: 'starting',
});

/** What a job is found by from its start. */
export const jobAttributes = ({ cluster }: JobSpec): AttributeValues => ({
  cluster: cluster.name,
  state: 'preparing',
});

/** What a keyword may be long, in characters: SQL databases keep 255. */
const LONGEST = 255;

/** The values as Temporal's client and workflows take them. Of a model in a deep folder the end is kept. */
export function attributePairs(values: AttributeValues): SearchAttributePair[] {
  const { model, fleet, cluster, state, schedule, rows, failedRows } = values;
  return [
    ...(model === undefined ? [] : [{ key: ATTRIBUTE.model, value: model.slice(-LONGEST) }]),
    ...(fleet === undefined ? [] : [{ key: ATTRIBUTE.fleet, value: fleet }]),
    ...(cluster === undefined ? [] : [{ key: ATTRIBUTE.cluster, value: cluster }]),
    ...(state === undefined ? [] : [{ key: ATTRIBUTE.state, value: state }]),
    ...(schedule === undefined ? [] : [{ key: ATTRIBUTE.schedule, value: schedule }]),
    ...(rows === undefined ? [] : [{ key: ATTRIBUTE.rows, value: rows }]),
    ...(failedRows === undefined ? [] : [{ key: ATTRIBUTE.failedRows, value: failedRows }]),
  ];
}
