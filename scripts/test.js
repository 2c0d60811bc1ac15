/**
 * All checks and tests of both languages: `npm test`. The last line is `N passed, N failed`; the exit code is
 * 0 only when something passed and nothing failed. A failed check or a file that cannot be loaded counts as
 * one failure.
 *
 * `npm test -- SELECTION...` runs only tests and no checks: a word that names a `.py` file or lies in
 * `python-activities/` goes to pytest, another one to vitest; both take their own flags after `--vitest` or
 * `--pytest`.
 */
import { execa } from 'execa';

import { ASIDE, pytest, root, vitest } from './testing/runners.js';

/** Splits the command line into what is for vitest and what is for pytest. */
function selection(words) {
  const chosen = { vitest: [], pytest: [] };
  let forced;
  for (const word of words) {
    if (word === '--vitest' || word === '--pytest') {
      forced = word.slice(2);
      continue;
    }
    const isPython = /\.py(?:::|$)/u.test(word) || word.startsWith('python-activities/');
    chosen[forced ?? (isPython ? 'pytest' : 'vitest')].push(
      word.replace(/^python-activities\//u, ''),
    );
  }
  return chosen;
}

/** Runs a step that is no test runner: nothing when it works, else one failure. */
async function step(name, work) {
  try {
    await work();
    return { passed: 0, failed: 0 };
  } catch (error) {
    console.error(`${name} failed: ${error.shortMessage ?? error.message}`);
    return { passed: 0, failed: 1 };
  }
}

/** What starts stacks and Ray nodes and waits for them most of the time: two of these files at once. */
const ON_RAY = ['test/unit/stack.test.ts', 'test/cluster', 'test/hosts', 'test/e2e'];
/** Real engines: each has the two cores of a small machine for itself. */
const ON_VLLM = ['test/e2e/run.test.ts', 'test/docs/guide.test.ts', 'test/bench'];
/** The short fault campaign that every change has to pass. */
const CAMPAIGN = {
  /** Waits for something to recover most of the time, within limits that a busy machine exceeds. */
  partitions: 'test/chaos/partitions.test.ts',
  controls: 'test/chaos/controls.test.ts',
  vllm: 'test/chaos/vllm.test.ts',
  /** All other faults, at the end and where there is time for it: ten minutes and more. */
  simulated: 'test/chaos/simulated.test.ts',
};
/** What is not for every change: `npm run test:examples`, `test:production` and `test:upgrade`. */
const BY_THEMSELVES = ['test/jobs', 'test/production', 'test/upgrade'];
const without = (names) =>
  names.map((name) => (name.endsWith('.ts') ? `--exclude=${name}` : `--exclude=${name}/**`));
const NOT_LIGHT = [...ON_RAY, ...ON_VLLM, ...Object.values(CAMPAIGN), ...BY_THEMSELVES];
const sideBySide = (files) => ['--fileParallelism', `--maxWorkers=${files}`];

/**
 * Every test, in rows. What is in a row goes on side by side, each a sequence of groups; the light tests wait for timers
 * of Temporal most of the time, and each file has a namespace of its own.
 */
const ROWS = [
  [
    [
      { runner: vitest, args: [...without(NOT_LIGHT), ...sideBySide(3)] },
      { runner: vitest, args: [CAMPAIGN.partitions] },
    ],
    [
      { runner: pytest, args: ['-m', 'not vllm'], options: ASIDE },
      { runner: pytest, args: ['-m', 'vllm'], options: ASIDE },
      { runner: vitest, args: [CAMPAIGN.controls] },
    ],
  ],
  [[{ runner: vitest, args: [CAMPAIGN.vllm] }]],
  [[{ runner: vitest, args: [...ON_RAY, ...without(ON_VLLM), ...sideBySide(2)] }]],
  [[{ runner: vitest, args: ON_VLLM }]],
];

/** More failures than these are no accident of a busy machine. */
const MOST_AGAIN = 5;
/** What campaigns begin a line with that says what did not hold; all but the sixth is no question of time. */
const FOR_GOOD = /^I[1-57] /mu;
/** Later than this nothing is tried again: whoever waits for all tests is to have an answer. */
const AGAIN_WITHIN_MS = 55 * 60_000;
/** A machine on which all else takes longer than this is too slow for the last campaign as well. */
const SIMULATED_WITHIN_MS = 50 * 60_000;
/** Failures of a first try that did not happen again. */
const unsteady = [];
/** @type {string | undefined} What there was no time for. */
let leftOut;

async function everything() {
  const counts = [];
  for (const row of ROWS) {
    const done = (await Promise.all(row.map(inSequence))).flat();
    for (const { runner, first } of done) counts.push(await again(runner, first));
  }
  if (performance.now() < SIMULATED_WITHIN_MS) counts.push(await vitest([CAMPAIGN.simulated]));
  else leftOut = `${CAMPAIGN.simulated} was left out after ${minutes()} min: npm run test:campaign`;
  return counts;
}

const minutes = () => Math.round(performance.now() / 60_000);

async function inSequence(groups) {
  const done = [];
  for (const { runner, args, options } of groups) {
    done.push({ runner, first: await runner(args, options) });
  }
  return done;
}

/**
 * Files with failed tests are run once more, by themselves: now and then a busy machine exceeds a limit of time.
 * What passes then is named at the end, as it may be a race all the same.
 */
async function again(runner, first) {
  const { passed, failed, failures } = first;
  if (failed === 0 || failed !== failures.length || failed > MOST_AGAIN) return first;
  if (performance.now() > AGAIN_WITHIN_MS) return first;
  if (failures.some(({ message }) => FOR_GOOD.test(message))) return first;
  const second = await runner([...new Set(failures.map(({ file }) => file))]);
  if (second.passed === 0) return first;
  const still = new Set(second.failures.map(({ name }) => name));
  unsteady.push(...failures.filter(({ name }) => !still.has(name)));
  return { ...second, passed: passed + failed - second.failed };
}

function show(title, { name, message }) {
  const lines = message.split('\n').slice(0, 12);
  console.log(`\n${title} ${name}\n${lines.map((line) => `  ${line}`).join('\n')}`);
}

const words = process.argv.slice(2);
const chosen = selection(words);
const results = [
  await step('build', () =>
    execa('npm', ['run', '--silent', 'build'], { cwd: root, stdio: 'inherit' }),
  ),
];
if (results[0].failed === 0) {
  results.push(
    await step('set-up', async () => {
      const { setUp } = await import('../dist/setup/index.js');
      const jobs = chosen.vitest.some((name) => name.startsWith('test/jobs'));
      await setUp({ log: (line) => console.error(line), jobs });
    }),
  );
}
if (results.every(({ failed }) => failed === 0)) {
  if (words.length === 0) {
    results.push(
      await step('check', () =>
        execa(process.execPath, ['scripts/check.js'], { cwd: root, stdio: 'inherit' }),
      ),
      ...(await everything()),
    );
  }
  if (chosen.vitest.length > 0) results.push(await vitest(chosen.vitest));
  if (chosen.pytest.length > 0) results.push(await pytest(chosen.pytest));
}

for (const one of unsteady) show('FAILED ONCE, passed by itself:', one);
for (const one of results.flatMap(({ failures = [] }) => failures)) show('FAILED', one);
if (leftOut !== undefined) console.log(`\n${leftOut}`);
const sum = (key) => results.reduce((total, counts) => total + counts[key], 0);
const [passed, failed] = [sum('passed'), sum('failed')];
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
console.log(`${passed} passed, ${failed} failed`);
