/**
 * Takes pictures of Temporal's web interface as people see it: the list of workflows, a run, a failed run and a schedule.
 * `npm run screenshots -- [options]`, against a stack that is up; what is not there is named and left out.
 *
 * Needs Chromium or Chrome.
 */
import { accessSync, constants, mkdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

import { ClientError, describeFailure, listSchedules, withClient } from '../dist/client/index.js';
import { scheduleId, WORKFLOW } from '../dist/contracts/names.js';
import { ATTRIBUTE } from '../dist/contracts/search-attributes.js';
import { stackStatus } from '../dist/workers/stack/index.js';

const HELP = `Usage: npm run screenshots -- [options]

Options:
  --browser <path>  Chromium or Chrome (default: $RANKFLOW_BROWSER, else the first on PATH)
  --ui <address>    of the web interface (default: that of the local stack)
  --out <folder>    for the pictures (default: screenshots)
  --addresses       print the addresses of the pages, and take no pictures`;

const BROWSERS = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];

/** High enough for whole pages, which scroll inside the window. */
const VIEWPORT = { width: 1440, height: 1800 };
/** A first page comes within seconds also on a slow machine. */
const PAGE_MS = 60_000;
/** The interface says nowhere that it has drawn what its last calls brought. */
const SETTLE_MS = 4_000;

const { values } = parseArgs({
  options: {
    browser: { type: 'string' },
    ui: { type: 'string' },
    out: { type: 'string', default: 'screenshots' },
    addresses: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const isProgram = (file) => {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
};

/** @throws ClientError `Usage` when there is none */
function findBrowser() {
  const folders = (process.env.PATH ?? '').split(path.delimiter);
  const onPath = BROWSERS.flatMap((name) => folders.map((folder) => path.join(folder, name)));
  // An empty variable is none.
  const named = values.browser ?? (process.env.RANKFLOW_BROWSER || undefined);
  const found = (named === undefined ? onPath : [named]).find(isProgram);
  if (found !== undefined) return found;
  throw new ClientError(
    'Usage',
    named === undefined ? 'There is no Chromium or Chrome on PATH.' : `${named} is no program.`,
    {
      wayOut:
        'Install one (on Debian: `apt-get install chromium`), or name it with --browser or RANKFLOW_BROWSER.',
    },
  );
}

function findInterface() {
  const { status, stack } = stackStatus();
  const ui = values.ui ?? (status === 'running' ? stack?.uiUrl : undefined);
  if (ui !== undefined) return ui;
  throw new ClientError('Unreachable', 'No local stack with a web interface is up.', {
    wayOut: 'Start one with `rankflow up`, or name an interface with --ui.',
  });
}

/** Pages of the newest run with one of these states, tried in this order: its history and its details. */
const runIn =
  (...states) =>
  async (client) => {
    for (const state of states) {
      const query = `WorkflowType = '${WORKFLOW.inference}' AND ${ATTRIBUTE.state.name} = '${state}'`;
      for await (const { workflowId, runId } of client.workflow.list({ query, pageSize: 1 })) {
        const run = `workflows/${encodeURIComponent(workflowId)}/${runId}`;
        return { '': `${run}/history`, '-details': `${run}/user-metadata` };
      }
    }
    return {};
  };

async function firstSchedule(client) {
  const [first] = await listSchedules(client);
  return first ? { '': `schedules/${encodeURIComponent(scheduleId(first.name))}` } : {};
}

/** What there is to see, and where: addresses below the namespace, by what is added to the name of the picture. */
const VIEWS = [
  { name: 'workflows', what: 'list', find: async () => ({ '': 'workflows' }) },
  {
    name: 'run',
    what: 'run that goes on or has results',
    find: runIn('in_progress', 'paused', 'validating', 'completed'),
  },
  { name: 'failed-run', what: 'failed run', find: runIn('failed') },
  { name: 'schedule', what: 'schedule', find: firstSchedule },
];

/** Address of each page that is there; says which are not. */
async function findPages(ui) {
  const pages = [];
  await withClient(async (client) => {
    for (const { name, what, find } of VIEWS) {
      const found = Object.entries(await find(client));
      if (found.length === 0) console.error(`${name}: left out, as there is no ${what}`);
      const at = `${ui}/namespaces/${client.options.namespace}`;
      pages.push(...found.map(([part, page]) => ({ name: name + part, address: `${at}/${page}` })));
    }
  });
  return pages;
}

async function takePictures(executablePath, pages) {
  mkdirSync(values.out, { recursive: true });
  const browser = await chromium.launch({
    executablePath,
    // Root cannot have one.
    chromiumSandbox: process.getuid?.() !== 0,
    timeout: PAGE_MS,
  });
  try {
    const page = await browser.newPage({ viewport: VIEWPORT });
    for (const { name, address } of pages) {
      await page.goto(address, { timeout: PAGE_MS });
      await page.waitForTimeout(SETTLE_MS);
      const file = path.join(values.out, `${name}.png`);
      await page.screenshot({ path: file });
      console.log(file);
    }
  } finally {
    await browser.close();
  }
}

async function main() {
  const browser = values.addresses ? undefined : findBrowser();
  const pages = await findPages(findInterface());
  if (browser !== undefined) await takePictures(browser, pages);
  else for (const { name, address } of pages) console.log(`${name} ${address}`);
}

if (values.help) console.log(HELP);
else {
  try {
    await main();
  } catch (error) {
    const { message, wayOut, exitCode } = describeFailure(error);
    console.error([message, wayOut].filter(Boolean).join('\n'));
    process.exitCode = exitCode;
  }
}
