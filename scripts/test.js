/**
 * All checks and tests of both languages: `npm test`. The last line is `N passed, N failed`; the exit code is
 * 0 only when something passed and nothing failed. A failed check or a file that cannot be loaded counts as
 * one failure.
 *
 * `npm test -- SELECTION...` runs only tests and no checks: a word that names a `.py` file or lies in
 * `python-activities/` goes to pytest, another one to vitest; both take their own flags after `--vitest` or
 * `--pytest`.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';

const root = fileURLToPath(new URL('..', import.meta.url));
const python = path.join(root, 'python-activities');
const reports = mkdtempSync(path.join(tmpdir(), 'rankflow-test-'));

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

const run = (command, args, options = {}) =>
  execa(command, args, {
    cwd: root,
    stdio: 'inherit',
    reject: false,
    preferLocal: true,
    localDir: root,
    ...options,
  });

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

/** A runner that fails without a failed test to show for it (a crash, no report) is one failure. */
const honest = (counts, exitCode) =>
  exitCode !== 0 && counts.failed === 0 ? { ...counts, failed: 1 } : counts;

/** Runs start beside one another: each has a report of its own. */
let reportNumber = 0;

/** What is said of each failed test at the very end, where a log that keeps only its last lines still has it. */
const failures = [];

const XML_ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", '#10': '\n' };
const fromXml = (text) => text.replace(/&(#?\w+);/gu, (whole, name) => XML_ENTITIES[name] ?? whole);

function failedInVitest(testResults) {
  return testResults.flatMap(({ name, status, message, assertionResults }) => {
    const failed = assertionResults.filter((one) => one.status === 'failed');
    const file = path.relative(root, name);
    if (status === 'failed' && failed.length === 0) return [{ name: file, message }];
    return failed.map((one) => ({
      name: `${file} > ${one.fullName}`,
      message: one.failureMessages.join('\n'),
    }));
  });
}

function failedInPytest(xml) {
  const pattern =
    /<testcase classname="([^"]*)" name="([^"]*)"[^>]*>\s*<(?:failure|error) message="([^"]*)"/gu;
  return [...xml.matchAll(pattern)].map(([, file, name, message]) => ({
    name: `${file}::${fromXml(name)}`,
    message: fromXml(message),
  }));
}

async function vitest(args) {
  const report = path.join(reports, `vitest-${(reportNumber += 1)}.json`);
  const { exitCode } = await run('vitest', [
    ...['run', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`],
    ...args,
  ]);
  if (!existsSync(report)) return { passed: 0, failed: 1 };
  const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(report, 'utf8'));
  const unloadable = testResults.filter(
    (file) =>
      file.status === 'failed' && !file.assertionResults.some((one) => one.status === 'failed'),
  );
  failures.push(...failedInVitest(testResults));
  return honest(
    { passed: numPassedTests, failed: numFailedTests + unloadable.length },
    exitCode ?? 1,
  );
}

/** @param options of the process; what it says is printed at its end when it is not inherited */
async function pytest(args, options = {}) {
  const { paths } = await import('../dist/setup/paths.js');
  const report = path.join(reports, `pytest-${(reportNumber += 1)}.xml`);
  const { exitCode, all: said } = await run(
    paths.python,
    ['-m', 'pytest', `--junit-xml=${report}`, ...args],
    { cwd: python, env: { PYTHONPATH: python }, ...options },
  );
  if (said) console.log(said);
  if (!existsSync(report)) return { passed: 0, failed: 1 };
  const xml = readFileSync(report, 'utf8');
  failures.push(...failedInPytest(xml));
  const suite = /<testsuite [^>]*>/u.exec(xml)?.[0] ?? '';
  const count = (name) => Number(new RegExp(` ${name}="(\\d+)"`, 'u').exec(suite)?.[1] ?? 0);
  const failed = count('failures') + count('errors');
  const passed = count('tests') - failed - count('skipped');
  return honest({ passed, failed }, exitCode ?? 1);
}

/** What starts Ray nodes or real engines: it has the two cores of a small machine for itself. */
const HEAVY = ['test/bench', 'test/cluster', 'test/hosts', 'test/e2e', 'test/docs/guide.test.ts'];
/** What takes too long for every change: `npm run test:campaign` and `npm run test:examples`. */
const BY_THEMSELVES = ['test/chaos/simulated.test.ts', 'test/chaos/vllm.test.ts', 'test/jobs'];
const ASIDE = { stdio: ['ignore', 'pipe', 'pipe'], all: true, maxBuffer: 1e9 };

/** Every test. Those of workflows mostly wait for timers, so the light ones in Python run beside them. */
async function everything() {
  const others = [...HEAVY, ...BY_THEMSELVES].map((name) =>
    name.endsWith('.ts') ? `--exclude=${name}` : `--exclude=${name}/**`,
  );
  return [
    ...(await Promise.all([vitest(others), pytest(['-m', 'not vllm'], ASIDE)])),
    await vitest(HEAVY),
    await pytest(['-m', 'vllm']),
  ];
}

const words = process.argv.slice(2);
const chosen = selection(words);
const all = words.length === 0;
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
  if (all) {
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
rmSync(reports, { recursive: true, force: true });

const SHOWN_LINES = 12;
for (const { name, message } of failures) {
  const lines = message.split('\n').slice(0, SHOWN_LINES);
  console.log(`\nFAILED ${name}\n${lines.map((line) => `  ${line}`).join('\n')}`);
}

const sum = (key) => results.reduce((total, counts) => total + counts[key], 0);
const [passed, failed] = [sum('passed'), sum('failed')];
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
console.log(`${passed} passed, ${failed} failed`);
