import type { FleetReady } from '../contracts/workflows.js';
import { Teller } from './teller.js';

interface Listener {
  known: FleetReady | undefined;
  readonly teller: Teller;
}

/** Tells those that use a fleet how many of its engines are ready, when that is another number than they know. */
export class ReadyNews {
  readonly #listeners = new Map<string, Listener>();

  constructor(
    private readonly now: () => FleetReady,
    private readonly tell: (user: string, ready: FleetReady) => Promise<void>,
  ) {}

  /** The user knows how it is now: it was answered, or finds nothing there. */
  knows(user: string): void {
    this.#of(user).known = this.now();
  }

  /** Something may have changed for these, which are all that there are but for those that are answered anyway. */
  changed(users: readonly string[]): void {
    for (const user of users) {
      const listener = this.#of(user);
      if (this.#isNews(listener)) listener.teller.changed();
    }
  }

  /** The user has given the fleet back. */
  forget(user: string): void {
    this.#listeners.delete(user);
  }

  #isNews({ known }: Listener): boolean {
    const { ready, desired } = this.now();
    return known?.ready !== ready || known.desired !== desired;
  }

  #of(user: string): Listener {
    const found = this.#listeners.get(user);
    if (found !== undefined) return found;
    const tell = async (): Promise<void> => {
      // It may be as it was, or the user gone, by the time that it is told.
      if (this.#listeners.get(user) !== listener || !this.#isNews(listener)) return;
      listener.known = this.now();
      await this.tell(user, listener.known);
    };
    const listener: Listener = { known: undefined, teller: new Teller(tell, Date.now()) };
    this.#listeners.set(user, listener);
    return listener;
  }
}
