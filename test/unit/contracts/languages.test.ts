import { execFileSync } from 'node:child_process';

import { expect, test } from 'vitest';

import { ERRORS } from '../../../src/contracts/errors.js';
import { canonicalJson, specHash } from '../../../src/contracts/hash.js';
import { ModelSpec } from '../../../src/contracts/model.js';
import * as names from '../../../src/contracts/names.js';
import { paths } from '../../../src/setup/paths.js';

/** Runs Python in the project's environment and reads the JSON that it prints. */
function python(code: string, input: unknown = null): unknown {
  const output = execFileSync(paths.python, ['-c', code], {
    input: JSON.stringify(input),
    env: { ...process.env, PYTHONPATH: paths.pythonProject },
    encoding: 'utf8',
  });
  return JSON.parse(output) as unknown;
}

const HASH = '0123456789abcdef'.repeat(4);
/** Fleet, slot and incarnation, with what a name may hold at its edges. */
const ENGINES = [
  ['default', 0, 'a1b2c3d4-17'],
  ['smollm2-135m-instruct-1a2b3c4d', 7, 'ffffffff-4194304'],
  ['x', 1023, '00000000-1'],
] as const;

test('queues, actors and workflows have the same names in both languages', () => {
  const inPython = python(
    `import json, sys
from rankflow.contracts import names as n
print(json.dumps([
    [n.fleet_queue(f, h), n.slot_queue(f, h, s), n.engine_queue(f, h, s, i), n.engine_actor_name(f, h, s),
     n.fleet_workflow_id(n.fleet_of_actor(n.engine_actor_name(f, h, s))), n.cluster_workflow_id(f)]
    for f, s, i, h in json.load(sys.stdin)
]))`,
    ENGINES.map((engine) => [...engine, HASH]),
  );
  const inTypeScript = ENGINES.map(([fleet, slot, incarnation]) => [
    names.fleetQueue(fleet, HASH),
    names.slotQueue(fleet, HASH, slot),
    names.engineQueue(fleet, HASH, slot, incarnation),
    names.engineActorName(fleet, HASH, slot),
    names.fleetWorkflowId(fleet),
    names.clusterWorkflowId(fleet),
  ]);
  expect(inPython).toEqual(inTypeScript);
});

test('workers, activities and signals have the same names in both languages', () => {
  const constants = python(
    `import json
from rankflow.contracts import names
print(json.dumps({k: v for k, v in vars(names).items() if k.isupper() and isinstance(v, str)}))`,
  ) as Record<string, string>;
  const { CONTROL_QUEUE, PYTHON_QUEUE, RAY_NAMESPACE, NODE_ID_LABEL, RANK_WORKFLOW, ...others } =
    constants;
  expect(RANK_WORKFLOW).toBe(names.WORKFLOW.rank);
  const { PREEMPTION_NOTICE_SIGNAL, ...activities } = others;
  expect(PREEMPTION_NOTICE_SIGNAL).toBe(names.SIGNAL.preemptionNotice);
  expect({ CONTROL_QUEUE, PYTHON_QUEUE, RAY_NAMESPACE, NODE_ID_LABEL }).toEqual({
    CONTROL_QUEUE: names.CONTROL_QUEUE,
    PYTHON_QUEUE: names.PYTHON_QUEUE,
    RAY_NAMESPACE: names.RAY_NAMESPACE,
    NODE_ID_LABEL: names.NODE_ID_LABEL,
  });
  const inTypeScript = { ...names.PYTHON_ACTIVITY, ...names.ENGINE_ACTIVITY };
  expect(Object.values(activities).toSorted()).toEqual(Object.values(inTypeScript).toSorted());
});

test('errors have the same names in both languages, and the same ones are tried again', () => {
  const inPython = python(
    `import json
from rankflow.contracts.errors import ErrorType, RETRYABLE
print(json.dumps({e.value: e in RETRYABLE for e in ErrorType}))`,
  );
  const inTypeScript = Object.fromEntries(
    Object.entries(ERRORS).map(([type, { retryable }]) => [type, retryable]),
  );
  expect(inPython).toEqual(inTypeScript);
});

test('a model spec has the same hash in both languages', () => {
  const specs = [
    { model: 'org/model' },
    { model: '/models/ünïcode', dtype: 'float32', cpusPerEngine: 1.0, gpusPerEngine: 0.25 },
    {
      model: 'm',
      maxModelLen: 512,
      credentials: { env: 'HF_TOKEN' },
      engineArgs: { b: [1, { z: null, a: 2.5 }], a: { enforce_eager: true }, limit: 3.0 },
    },
  ].map((spec) => ModelSpec.parse(spec));
  const inPython = python(
    `import json, sys
from rankflow.contracts.models import ModelSpec
from rankflow.rows.canonical import spec_hash
print(json.dumps([spec_hash(ModelSpec.model_validate(s)) for s in json.load(sys.stdin)]))`,
    specs,
  );
  expect(inPython).toEqual(specs.map(specHash));
});

test('what a newer release adds is left out by an older one', () => {
  const { strict, taken } = python(
    `import json
from pydantic import BaseModel
from rankflow.contracts import models
from rankflow.rows.manifest import Manifest
from rankflow.rows.plan import PlanDocument
from rankflow.store.commits import Commit
kinds = [m for m in vars(models).values() if isinstance(m, type) and issubclass(m, BaseModel)]
assert len(kinds) > 40, kinds
print(json.dumps({
    "strict": [m.__name__ for m in [*kinds, Manifest, PlanDocument, Commit]
               if m.model_config.get("extra") == "forbid"],
    "taken": models.ModelSpec.model_validate({"model": "m", "fromTomorrow": 1}).model,
}))`,
  ) as { strict: string[]; taken: string };
  expect({ strict, taken }).toEqual({ strict: [], taken: 'm' });
  // What people write is looked at here, where they are told.
  expect(ModelSpec.safeParse({ model: 'm', fromTomorrow: 1 }).success).toBe(false);
});

test('equal values have equal text, whatever the order of their keys', () => {
  expect(canonicalJson({ b: 1, a: { d: [2, 1], c: null } })).toBe(
    '{"a":{"c":null,"d":[2,1]},"b":1}',
  );
});
