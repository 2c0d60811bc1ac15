import { type PlanDocument, type PlannedBatch, batchName, parse, sha256 } from './documents.js';
import type { StoreReader } from './reader.js';

/** A plan as it is visible, with what a reader must not see: code and message. */
export interface VisiblePlan {
  readonly plan?: PlanDocument;
  readonly batches: readonly PlannedBatch[];
  readonly problems: readonly (readonly [code: string, message: string])[];
}

/** Reads the plan of a run and what it names; undefined while there is none. */
export async function readPlan(
  reader: StoreReader,
  folder: string,
): Promise<VisiblePlan | undefined> {
  const data = await reader.read(`${folder}/plan.json`);
  if (data === undefined) return undefined;
  const plan = parse(data) as PlanDocument | undefined;
  if (plan === undefined) return { batches: [], problems: [['torn', 'plan.json is no JSON']] };
  const problems: [string, string][] = [];
  const requests = await reader.read(`${folder}/plan/${plan.token}/requests.jsonl`);
  if (requests === undefined || sha256(requests) !== plan.requestsSha256) {
    problems.push(['half-visible', 'the plan is visible and its requests are not whole']);
  }
  const batches: PlannedBatch[] = [];
  for (const [rank, { tableSha256 }] of plan.ranks.entries()) {
    const name = `rank-${String(rank).padStart(4, '0')}.json`;
    const table = await reader.read(`${folder}/plan/${plan.token}/${name}`);
    if (table === undefined || sha256(table) !== tableSha256) {
      problems.push(['half-visible', `the plan is visible and the table of rank ${rank} is not`]);
      continue;
    }
    const entries = (parse(table) ?? []) as [number, number, number, number, number][];
    for (const [batch, [, , firstRow, rows]] of entries.entries()) {
      batches.push({ name: batchName(rank, batch), firstRow, rows });
    }
  }
  return { plan, batches, problems };
}
