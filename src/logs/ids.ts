/** What a line of a log is about, by the names that people use. */
export interface LogIds {
  readonly run?: string;
  readonly rank?: number;
  readonly fleet?: string;
  readonly cluster?: string;
  readonly job?: string;
}

/** What a workflow is about, by its id: Temporal's SDK puts that on each of its lines. */
export function idsOfWorkflow(workflowId: unknown): LogIds {
  if (typeof workflowId !== 'string') return {};
  const [kind, name, rank] = workflowId.split('/');
  if (name === undefined) return {};
  if (kind === 'inference') return { run: name };
  if (kind === 'run') {
    const number = /^rank-(\d+)$/u.exec(rank ?? '')?.[1];
    return { run: name, ...(number !== undefined && { rank: Number(number) }) };
  }
  return kind === 'fleet' || kind === 'cluster' || kind === 'job' ? { [kind]: name } : {};
}
