import { WithStartWorkflowOperation, type Client } from '@temporalio/client';

import type { FleetSpec } from '../../src/contracts/fleet.js';
import { CONTROL_QUEUE, UPDATE, WORKFLOW, fleetWorkflowId } from '../../src/contracts/names.js';
import type { EnsureFleetRequest, EnsuredFleet } from '../../src/contracts/workflows.js';

/** Asks for a fleet as the activity does, and waits until it is ready. */
export const ensureFleet = async (
  client: Client,
  spec: FleetSpec,
  claim: Omit<EnsureFleetRequest, 'spec'> = {},
): Promise<EnsuredFleet> =>
  client.workflow.executeUpdateWithStart<never, EnsuredFleet, [EnsureFleetRequest]>(
    UPDATE.ensureFleet,
    {
      args: [{ spec, ...claim }],
      startWorkflowOperation: new WithStartWorkflowOperation<never>(WORKFLOW.fleet, {
        workflowId: fleetWorkflowId(spec.name),
        taskQueue: CONTROL_QUEUE,
        args: [{ spec }],
        workflowIdConflictPolicy: 'USE_EXISTING',
      } as never),
    },
  );
