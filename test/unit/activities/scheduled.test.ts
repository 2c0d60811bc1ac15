import { expect, test } from 'vitest';

import { missingCluster } from '../../../src/activities/scheduled.js';

test('a scheduled run waits ten minutes for its cluster and then fails', () => {
  const [early, late] = [599_000, 600_000].map((waited) => missingCluster('lab', waited));
  expect(early).toMatchObject({
    ...{ type: 'ClusterMissing', nonRetryable: false },
    message: 'there is no cluster lab up',
  });
  expect(late).toMatchObject({
    ...{ type: 'ClusterMissing', nonRetryable: true },
    message: 'there is no cluster lab up, and there was none for 10 minutes',
  });
});
