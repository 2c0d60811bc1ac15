/** Starts Temporal and the workers where `rankflow setup` cannot run; prints the server's address. */
import { ensureStack } from '../../dist/workers/stack/index.js';

const { address } = await ensureStack({ log: (line) => console.error(line) });
console.log(address);
