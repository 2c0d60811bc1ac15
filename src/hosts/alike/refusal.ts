import type { HostReport } from './facts.js';

/** The refusals as an error's message shows them: a line each. */
export function refusalText({ findings }: HostReport): string {
  return findings
    .filter(({ severity }) => severity === 'refuses')
    .map(({ what, found, mend }) => {
      const values = Object.entries(found).map(([where, value]) => `${where}: ${value}`);
      return `${what}: ${values.join('; ')}. ${mend}`;
    })
    .join('\n');
}
