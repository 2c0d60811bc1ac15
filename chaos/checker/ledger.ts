import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';

/** One line of a simulated engine's ledger: the beginning or the end of decoding one request. */
interface LedgerLine {
  readonly request: string;
  /** Tokens to come; on the first line of a request. */
  readonly tokens?: number;
  /** Tokens that came; on the second one, which a killed engine did not write. */
  readonly decoded?: number;
}

/**
 * Completion tokens that simulated engines decoded for a run, answers that were lost included. Of a request that
 * was being decoded when its engine was killed, all tokens are counted: the most that it can have been.
 *
 * @param folder where the engines keep their ledgers
 * @returns undefined when there are none
 */
export function decodedTokens(folder: string, runId: string): number | undefined {
  const lines = ledgerLines(folder).filter(({ request }) => request.startsWith(`${runId}-`));
  if (lines.length === 0) return undefined;
  const decoded = new Map<string, number>();
  for (const line of lines) decoded.set(line.request, line.decoded ?? line.tokens ?? 0);
  return [...decoded.values()].reduce((sum, tokens) => sum + tokens, 0);
}

function ledgerLines(folder: string): LedgerLine[] {
  try {
    return readdirSync(folder).flatMap((file) =>
      readFileSync(path.join(folder, file), 'utf8')
        .split('\n')
        .flatMap((line) => {
          try {
            return [JSON.parse(line) as LedgerLine];
          } catch {
            // The last line of an engine that was killed, or the end of the file.
            return [];
          }
        }),
    );
  } catch {
    return [];
  }
}
