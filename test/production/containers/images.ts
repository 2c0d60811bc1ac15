import { chmodSync, realpathSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { execa } from 'execa';

import { paths } from '../../../src/setup/paths.js';

/** What stands in for an image: programs of this machine where the image has its own. */
export interface Image {
  /** User and group that its processes run as. */
  readonly user: [number, number];
  /** Its working folder. */
  readonly folder: string;
  readonly entrypoint?: readonly string[];
  readonly command?: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** Files and folders of this machine, and where they are in the container. */
  readonly mounts: readonly (readonly [string, string])[];
  /** Such ones within volumes. */
  readonly mountsLast?: readonly (readonly [string, string])[];
}

const ORDINARY: [number, number] = [1000, 1000];
const SYSTEM = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Writes a script that stands in for one of an image, and returns where. */
function scriptIn(folder: string, name: string, text: string): string {
  const file = path.join(folder, name);
  writeFileSync(file, `#!/bin/bash\nset -euo pipefail\n${text}\n`);
  chmodSync(file, 0o755);
  return file;
}

/** The image of this project's Dockerfile: its folders, with this machine's Node.js and Python environment. */
export function rankflowImage(models: string): Image {
  const python = path.resolve(realpathSync(paths.python), '../..');
  const venv = realpathSync(paths.venv);
  return {
    user: ORDINARY,
    folder: '/app',
    environment: {
      RANKFLOW_HOME: '/opt/rankflow',
      PATH: `/opt/rankflow/venv/bin:/opt/rankflow/bin:${SYSTEM}`,
      PYTHONPATH: '/app/python-activities',
      PYTHONUNBUFFERED: '1',
      PYTHONDONTWRITEBYTECODE: '1',
      USE_TF: '0',
    },
    mounts: [
      ...['package.json', 'node_modules', 'dist', 'python-activities/rankflow'].map(
        (name) => [path.join(paths.packageRoot, name), `/app/${name}`] as const,
      ),
      [
        path.join(paths.packageRoot, 'deploy/docker/python-worker.sh'),
        '/opt/rankflow/bin/rankflow-python-worker',
      ],
      // Programs of an environment name the folder in which it was made.
      ...[venv, python].map((folder) => [folder, folder] as const),
      [venv, '/opt/rankflow/venv'],
    ],
    mountsLast: [[realpathSync(models), '/data/models/SmolLM2-135M-Instruct']],
  };
}

/** Temporal's server, its schema tool and its command line, as built from their modules. */
export async function temporalImage(
  folder: string,
  built: string,
  version: string,
  temporal: string,
): Promise<Image> {
  const { stdout } = await execa('go', [
    'mod',
    'download',
    '-json',
    `go.temporal.io/server@${version}`,
  ]);
  const { Dir: module } = JSON.parse(stdout) as { Dir: string };
  // As the image's own, whose configuration is the server's `docker.yaml`.
  const start = 'exec temporal-server --root /etc/temporal --config config --env docker start';
  return {
    user: ORDINARY,
    folder: '/etc/temporal',
    entrypoint: ['/etc/temporal/entrypoint.sh'],
    environment: { PATH: `/opt/temporal:${SYSTEM}` },
    mounts: [
      [scriptIn(folder, 'temporal.sh', start), '/etc/temporal/entrypoint.sh'],
      [path.join(module, 'config/docker.yaml'), '/etc/temporal/config/docker.yaml'],
      [path.join(built, 'server'), '/opt/temporal/temporal-server'],
      [path.join(built, 'sql'), '/opt/temporal/temporal-sql-tool'],
      [realpathSync(temporal), '/opt/temporal/temporal'],
    ],
  };
}

/** Debian's PostgreSQL behind what the image's own entrypoint does with these variables. */
export async function postgresImage(folder: string, postgres: string): Promise<Image> {
  const id = async (flag: string) => Number((await execa('id', [flag, 'postgres'])).stdout);
  const start = `
export PATH="${postgres}:$PATH"
data="\${PGDATA:-/var/lib/postgresql/data}"
[ -d "$data" ] || mkdir -p -m 700 "$data"
if [ ! -e "$data/PG_VERSION" ]; then
  initdb -D "$data" -U "$POSTGRES_USER" -A scram-sha-256 --pwfile="$POSTGRES_PASSWORD_FILE"
  echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
fi
exec postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp`;
  return {
    user: [await id('-u'), await id('-g')],
    folder: '/',
    entrypoint: ['/opt/postgres/docker-entrypoint.sh'],
    command: ['postgres'],
    environment: { PATH: `${postgres}:${SYSTEM}`, PGHOST: '/tmp' },
    mounts: [[scriptIn(folder, 'postgres.sh', start), '/opt/postgres/docker-entrypoint.sh']],
  };
}
