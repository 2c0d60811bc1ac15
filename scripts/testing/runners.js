/** Vitest and pytest, as processes that leave a report. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';

export const root = fileURLToPath(new URL('../..', import.meta.url));
const python = path.join(root, 'python-activities');
const reports = mkdtempSync(path.join(tmpdir(), 'rankflow-test-'));
process.once('exit', () => rmSync(reports, { recursive: true, force: true }));

/** Runs start beside one another: each has a report of its own. */
let reportNumber = 0;
const newReport = (name) => path.join(reports, `${(reportNumber += 1)}-${name}`);

/**
 * @typedef {{ name: string, message: string, file: string }} Failure `file`: runs it again
 * @typedef {{ passed: number, failed: number, failures: Failure[] }} Counts
 */

/** A runner that fails without a failed test to show for it (a crash, no report) is one failure. */
const honest = (counts, exitCode) =>
  exitCode !== 0 && counts.failed === 0 ? { ...counts, failed: 1 } : counts;

const CRASHED = { passed: 0, failed: 1, failures: [] };

const run = (command, args, options = {}) =>
  execa(command, args, {
    cwd: root,
    stdio: 'inherit',
    reject: false,
    preferLocal: true,
    localDir: root,
    ...options,
  });

/** @returns {Promise<Counts>} */
export async function vitest(args, options = {}) {
  const report = newReport('vitest.json');
  const { exitCode } = await said(
    run(
      'vitest',
      [...['run', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`], ...args],
      options,
    ),
  );
  if (!existsSync(report)) return CRASHED;
  const { numPassedTests, testResults } = JSON.parse(readFileSync(report, 'utf8'));
  const failures = testResults.flatMap(failedInVitest);
  return honest({ passed: numPassedTests, failed: failures.length, failures }, exitCode ?? 1);
}

/** The failed tests of one file; the file itself when it cannot be loaded. */
function failedInVitest({ name, status, message, assertionResults }) {
  const file = path.relative(root, name);
  const failed = assertionResults.filter((one) => one.status === 'failed');
  if (status === 'failed' && failed.length === 0) return [{ name: file, message, file }];
  return failed.map(({ fullName, failureMessages }) => ({
    name: `${file} > ${fullName}`,
    message: failureMessages.join('\n'),
    file,
  }));
}

/** @returns {Promise<Counts>} */
export async function pytest(args, options = {}) {
  const { paths } = await import('../../dist/setup/paths.js');
  const report = newReport('pytest.xml');
  const { exitCode } = await said(
    run(paths.python, ['-m', 'pytest', `--junit-xml=${report}`, ...args], {
      cwd: python,
      env: { PYTHONPATH: python },
      ...options,
    }),
  );
  if (!existsSync(report)) return CRASHED;
  const xml = readFileSync(report, 'utf8');
  const suite = /<testsuite [^>]*>/u.exec(xml)?.[0] ?? '';
  const count = (name) => Number(new RegExp(` ${name}="(\\d+)"`, 'u').exec(suite)?.[1] ?? 0);
  const failed = count('failures') + count('errors');
  const passed = count('tests') - failed - count('skipped');
  return honest({ passed, failed, failures: failedInPytest(xml) }, exitCode ?? 1);
}

const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", '#10': '\n' };
const fromXml = (text) => text.replace(/&(#?\w+);/gu, (whole, name) => ENTITIES[name] ?? whole);

function failedInPytest(xml) {
  const pattern =
    /<testcase classname="([^"]*)" name="([^"]*)"[^>]*>\s*<(?:failure|error) message="([^"]*)"/gu;
  return [...xml.matchAll(pattern)].map(([, module, name, message]) => {
    const file = `${module.replaceAll('.', '/')}.py`;
    return { name: `${file}::${fromXml(name)}`, message: fromXml(message), file };
  });
}

/** Options of a runner beside another one: what it says is printed at its end, in one piece. */
export const ASIDE = { stdio: ['ignore', 'pipe', 'pipe'], all: true, maxBuffer: 1e9 };

async function said(process) {
  const result = await process;
  if (result.all) console.log(result.all);
  return result;
}
