/** Of a run with `RANKFLOW_TEST_ENGINES=simulated`, for a machine on which real engines would starve; else nothing. */
export const SIMULATED: readonly string[] =
  process.env['RANKFLOW_TEST_ENGINES'] === 'simulated'
    ? ['--backend', 'simulated', '--engine-arg', 'tokens_per_second=100']
    : [];
