import type { HostFinding, StoreFacts } from './facts.js';

/** Whether a store is a folder: the same path may be another disk on each host. */
export const isFolder = (store: string): boolean =>
  !store.includes('://') || store.startsWith('file:');

/**
 * Judges a store by what was read from it: every host has to find what every other wrote. On one host a folder is
 * made when it is needed.
 */
export function judgeStore({ store, trips, notAsked }: StoreFacts): HostFinding[] {
  const hosts = Object.keys(trips);
  const alone = hosts.length + notAsked.length === 1;
  const missing = hosts.filter((host) => trips[host]?.missing);
  const broken = hosts.filter((host) => trips[host]?.problem !== undefined && !trips[host].missing);
  const writers = hosts.filter((host) => trips[host]?.written);
  const unread = hosts.flatMap((reader) => {
    const unfound = writers.filter((writer) => trips[reader]?.found?.[writer] === false);
    return unfound.length === 0 ? [] : [[reader, `does not see what ${unfound.join(', ')} wrote`]];
  });
  const findings: HostFinding[] = [];
  if (missing.length > 0 && !alone) {
    findings.push({
      what: 'store',
      severity: 'refuses',
      hosts: missing,
      found: Object.fromEntries(missing.map((host) => [host, `there is no folder ${store}`])),
      mend: `Mount the shared folder on ${missing.join(', ')} (NFS, CephFS, …), or use a bucket: --store s3://bucket/prefix.`,
    });
  }
  if (broken.length > 0) {
    findings.push({
      what: 'store',
      severity: 'refuses',
      hosts: broken,
      found: Object.fromEntries(broken.map((host) => [host, trips[host]?.problem ?? ''])),
      mend: isFolder(store)
        ? `Let the user of the nodes write to ${store} on ${broken.join(', ')}.`
        : `Set credentials, region and endpoint of the bucket on ${broken.join(', ')}, and let them through to it.`,
    });
  }
  if (unread.length > 0) {
    findings.push({
      what: 'store',
      severity: 'refuses',
      hosts: unread.map(([reader]) => String(reader)),
      found: Object.fromEntries(unread) as Record<string, string>,
      mend: isFolder(store)
        ? `${store} is a folder of its own on each host: mount one shared folder there on all of them, or use a bucket: --store s3://bucket/prefix.`
        : 'The hosts see different buckets: give them the same endpoint and credentials.',
    });
  }
  if (notAsked.length > 0 && !(alone && isFolder(store))) {
    findings.push({
      what: 'store',
      severity: 'warns',
      hosts: notAsked,
      found: Object.fromEntries(notAsked.map((host) => [host, 'has no environment yet to look'])),
      mend: `Look again when the cluster is up${isFolder(store) ? `: ${store} has to be one shared folder` : ''}.`,
    });
  }
  return findings;
}
