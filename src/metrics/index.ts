import type { Client } from '@temporalio/client';
import type { Logger } from '@temporalio/worker';

import type { MetricsAddress } from './address.js';
import { FleetWatch } from './fleets.js';
import { FleetGauges } from './gauges.js';
import { temporalMetrics } from './runtime.js';
import { serveMetrics, type MetricsServer } from './server.js';
import { engineTargets } from './targets.js';

/**
 * Serves `/metrics`, what this process, Temporal's SDK in it and the fleets say, and `/metrics/targets`, where
 * Prometheus finds the engines (HTTP service discovery).
 *
 * @param temporalPort where the core of the SDK serves its own
 */
export async function serveControlMetrics(
  address: MetricsAddress,
  client: Client,
  temporalPort: number | undefined,
  logger: Logger,
): Promise<MetricsServer | undefined> {
  const watch = new FleetWatch(client);
  const gauges = new FleetGauges(async () => watch.look());
  const metrics = async () => {
    const [own, temporal] = await Promise.all([
      gauges.text(),
      temporalPort === undefined ? '' : temporalMetrics(temporalPort),
    ]);
    return { type: gauges.contentType, text: `${own}${temporal}` };
  };
  const targets = async () => ({
    type: 'application/json',
    text: JSON.stringify(engineTargets(await watch.look())),
  });
  return serveMetrics(address, { '/metrics': metrics, '/metrics/targets': targets }, logger);
}
