import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/temporal-server.ts'],
    // Workflow tests wait for real timers of a real server; a busy machine takes its time.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Native workers of Temporal do not live well in worker threads.
    pool: 'forks',
    // One file after the other: Ray nodes and engines beside each other would starve on a small machine.
    fileParallelism: false,
  },
});
