/** Where the control worker answers Prometheus unless the environment says otherwise. */
const DEFAULT = '127.0.0.1:9464';

export interface MetricsAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * Where a worker serves its metrics: `HOST:PORT` as `RANKFLOW_METRICS_ADDRESS` says; undefined for `off`.
 *
 * @throws Error when it is no address
 */
export function metricsAddress(
  setting: string | undefined = process.env['RANKFLOW_METRICS_ADDRESS'],
): MetricsAddress | undefined {
  const text = setting || DEFAULT;
  if (text === 'off') return undefined;
  const match = /^(?<host>.*):(?<port>\d{1,5})$/u.exec(text);
  const port = Number(match?.groups?.['port'] ?? Number.NaN);
  if (!(port <= 65_535)) throw new Error(`RANKFLOW_METRICS_ADDRESS: ${text} is not HOST:PORT`);
  const host = match?.groups?.['host']?.replaceAll(/^\[|\]$/gu, '');
  return { host: host || '127.0.0.1', port };
}
