import { HostError, type Host } from './host.js';

/**
 * Writes standard input to `$1` with mode `$2`. `umask` first: at no moment is it readable by others; the new file
 * takes the old one's place in one step.
 */
const WRITE = 'umask 077; cat > "$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"';

/** {@link Host.put} by way of {@link Host.run}. */
export async function putFile(
  host: Host,
  path: string,
  content: string | Uint8Array,
  mode: number,
): Promise<void> {
  const command = ['sh', '-c', WRITE, 'sh', path, mode.toString(8).padStart(4, '0')];
  const { exitCode, stderr } = await host.run(command, { input: content });
  if (exitCode === 0) return;
  throw new HostError(
    'HostRefused',
    host.name,
    `${path} cannot be written: ${stderr.trim() || `exit code ${exitCode}`}`,
    'Give the user the right to write there, or free some space.',
  );
}
