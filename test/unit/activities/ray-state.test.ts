import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { countJobs, listNodes } from '../../../src/activities/ray-state.js';

/** A dashboard with three jobs that refuses whoever asks for nodes. */
describe("what Ray's dashboard answers", () => {
  let server: Server;
  let cluster: { name: string; address: string; dashboardUrl: string };
  beforeAll(async () => {
    const jobs = [
      { type: 'SUBMISSION', status: 'RUNNING' },
      { type: 'SUBMISSION', status: 'SUCCEEDED' },
      { type: 'DRIVER', status: 'RUNNING' },
    ];
    server = createServer((request, response) => {
      const known = request.url?.startsWith('/api/jobs/');
      response.writeHead(known ? 200 : 401, { 'content-type': 'application/json' });
      response.end(JSON.stringify(known ? jobs : {}));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    cluster = { name: 'c', address: 'h:1', dashboardUrl: `http://127.0.0.1:${port}` };
  });
  afterAll(() => server.close());

  it('is told as a wrong token when it is one', async () => {
    await expect(listNodes(cluster)).rejects.toThrow(
      /refuses no token: it is not that of this cluster/u,
    );
  });

  it('counts the jobs that were submitted and are not done, not drivers such as those of this program', async () => {
    expect(await countJobs(cluster)).toBe(1);
  });
});
