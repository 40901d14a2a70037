/** R18: what the peers say before a node that recovers lets its queued I/O go on. */
import type { Role } from '../binding/native.ts';
import { type Decision, RULE_PRIMARY_TARGET } from './generations.ts';

function objectionOf(peer: string, decision: Decision | null, role: Role | null): string | null {
  if (role === 'primary') return `the peer '${peer}' is primary`;
  if (decision?.kind === 'splitBrain') return `split brain with '${peer}': ${decision.reason}`;
  // A node that took its role up again before it asked is refused, instead of being made the target.
  const isBehind = decision?.side === 'target' || decision?.rule === RULE_PRIMARY_TARGET;
  if (decision && isBehind) return `the copy of '${peer}' is newer: ${decision.reason}`;
  return null;
}

export class Inquiry {
  /** What speaks against going on, by peer; null: nothing. */
  readonly #objections = new Map<string, string | null>();

  /** A peer whose writes this copy took over since the process began. */
  #followed: string | null = null;

  /**
   * This secondary follows the peer from now on, which is primary, or was since this node was. What waits here since a crash is older than
   * what comes from there, also when the peer is secondary again, or gone.
   */
  follows(peer: string): void {
    this.#followed = peer;
  }

  /** Why what waits here since a crash is not to go on, whatever is heard; null: nothing of the kind. */
  get overtaken(): string | null {
    return this.#followed === null
      ? null
      : `what waits here is older than what came from '${this.#followed}' meanwhile`;
  }

  /** What was heard earlier does not count, but for the peer that is linked. */
  begin(linked: string | null): void {
    for (const peer of this.#objections.keys()) {
      if (peer !== linked) this.#objections.delete(peer);
    }
  }

  heard(peer: string, decision: Decision | null, role: Role | null): void {
    const objection = objectionOf(peer, decision, role);
    // A peer that refused before anything was decided has said nothing, unless that it is primary.
    if (decision !== null || objection !== null) this.#objections.set(peer, objection);
  }

  /** Undefined: not every one of these peers was heard yet. */
  answer(peers: readonly string[]): string | null | undefined {
    if (this.overtaken !== null) return this.overtaken;
    let all = true;
    for (const peer of peers) {
      const objection = this.#objections.get(peer);
      if (objection) return objection;
      all = all && objection === null;
    }
    return all ? null : undefined;
  }
}
