import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

/**
 * An `ssh` that runs commands here: each host is a folder, which is its home, with programs of its own before those of
 * the system. Counts how many run at once.
 */
const SSH = `#!/bin/sh
while [ "$1" != -- ]; do shift; done
export HOME="$FAKE_HOSTS/$2"
shift 2
[ -d "$HOME" ] || { echo "ssh: connect: No route to host" >&2; exit 255; }
export SSH_CONNECTION="127.0.0.1 1 127.0.0.1 22" PATH="$HOME/bin:/usr/bin:/bin"
running="$FAKE_HOSTS/running/$$"; : > "$running"
ls "$FAKE_HOSTS/running" | wc -l >> "$FAKE_HOSTS/counts"
sh -c "$*"; code=$?
rm "$running"
exit "$code"
`;

/** Hosts behind an `ssh` that is none, for what is done to them and not how they are reached. */
export class FakeHosts {
  readonly folder = mkdtempSync(path.join(tmpdir(), 'rankflow-hosts-'));
  readonly #before = process.env['PATH'];

  constructor() {
    for (const name of ['bin', 'running']) mkdirSync(path.join(this.folder, name));
    writeFileSync(path.join(this.folder, 'bin/ssh'), SSH, { mode: 0o755 });
    process.env['FAKE_HOSTS'] = this.folder;
    process.env['PATH'] = `${path.join(this.folder, 'bin')}:${this.#before}`;
  }

  at = (...names: string[]): string => path.join(this.folder, ...names);

  /** Adds a host with programs, which are scripts of `sh`. */
  add(name: string, programs: Readonly<Record<string, string>> = {}): void {
    mkdirSync(this.at(name, 'bin'), { recursive: true });
    for (const [program, script] of Object.entries(programs)) {
      writeFileSync(this.at(name, 'bin', program), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    }
  }

  remove(): void {
    process.env['PATH'] = this.#before;
    delete process.env['FAKE_HOSTS'];
    rmSync(this.folder, { recursive: true, force: true });
  }
}
