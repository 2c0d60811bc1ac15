import type { ClusterCarried, UserClaim } from '../contracts/workflows.js';

type Carried = Pick<ClusterCarried, 'users' | 'owner' | 'permanent'>;

/**
 * Who needs a cluster or a fleet. It goes when its last user has given it back, unless it is permanent: once
 * ensured by a person or with `keep`, it stays until a person stops it. Pure state, no timers.
 */
export class Claims {
  readonly #users: Set<string>;
  #owner: string | undefined;
  #permanent: boolean;

  constructor(carried: Carried = { users: [], permanent: false }) {
    this.#users = new Set(carried.users);
    this.#owner = carried.owner;
    this.#permanent = carried.permanent;
  }

  /**
   * Claims it. The first to claim is the one that it is brought up for.
   *
   * @returns whether a person asks for it, or a user that has not claimed it yet
   */
  claim({ user, keep = false }: UserClaim): boolean {
    const first = this.#users.size === 0 && !this.#permanent;
    if (user === undefined || keep) this.#permanent = true;
    if (user === undefined) return true;
    if (first) this.#owner ??= user;
    const anew = !this.#users.has(user);
    this.#users.add(user);
    return anew;
  }

  /** Gives it back. Returns whether nobody needs it any more. */
  release(user: string): boolean {
    this.#users.delete(user);
    return this.#users.size === 0 && !this.#permanent;
  }

  startedFor(user: string | undefined): boolean {
    return user !== undefined && user === this.#owner;
  }

  get users(): readonly string[] {
    return [...this.#users];
  }

  carried(): Carried {
    return {
      users: this.users,
      permanent: this.#permanent,
      ...(this.#owner !== undefined && { owner: this.#owner }),
    };
  }
}
