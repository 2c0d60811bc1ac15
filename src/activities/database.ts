import type { Client } from '@temporalio/client';

/**
 * Tells a Temporal database from every other: the id of a namespace is made with it and survives restarts of the
 * server. Undefined when the server does not tell, as it may for lack of permission.
 */
export async function databaseId({
  options: { namespace },
  workflowService,
}: Client): Promise<string | undefined> {
  try {
    const { namespaceInfo } = await workflowService.describeNamespace({ namespace });
    return namespaceInfo?.id || undefined;
  } catch {
    return undefined;
  }
}
