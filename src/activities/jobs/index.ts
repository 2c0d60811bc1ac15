import type { JobActivities } from '../../contracts/job.js';
import { followJob } from './follow.js';
import { endJob, openJob, submitJob } from './submit.js';

/** What the control worker serves for jobs. */
export const jobActivities: JobActivities = { openJob, submitJob, followJob, endJob };
