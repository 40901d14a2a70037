/**
 * Roles over a link, as a state machine. A node that is to become primary while connected asks its peer first, by control
 * messages; so of two nodes that ask at once exactly one is allowed. Every role change is told, so that each side knows the
 * other's role now, not only that of the handshake.
 *
 *   promote? id           may I become primary?
 *   promote-ok id         yes; the answerer stays secondary until it hears the asker's role
 *   promote-no id reason
 *   role                  my role from now on; also ends what promote-ok granted
 *   bye again reason      I end the link on purpose; `again`: I come back at once
 */
import { z } from 'zod';
import type { Role } from '../binding/native.ts';
import { REASON_LENGTH_MAX } from './messages.ts';

/** How long the peer may take to answer. */
export const PROMOTE_ANSWER_MS = 5_000;

const id = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const reason = z
  .string()
  .transform((text) => text.replace(/[\p{Cc}\p{Cf}]/gu, ' ').slice(0, REASON_LENGTH_MAX));
const control = z.discriminatedUnion('type', [
  z.object({ type: z.literal('promote?'), id }),
  z.object({ type: z.literal('promote-ok'), id }),
  z.object({ type: z.literal('promote-no'), id, reason }),
  z.object({ type: z.literal('role'), role: z.enum(['primary', 'secondary']) }),
  z.object({ type: z.literal('bye'), again: z.boolean(), reason }),
]);
export type ControlMessage = z.infer<typeof control>;

/** Null for what this version does not know; the core has checked that it came whole. */
export function parseControl(json: string): ControlMessage | null {
  try {
    return control.safeParse(JSON.parse(json)).data ?? null;
  } catch {
    return null;
  }
}

export interface Verdict {
  allowed: boolean;
  reason: string;
}

export class Promotion {
  readonly #nodeId: string;
  #peer: { nodeId: string; role: Role } | null = null;
  #asking: { id: number } | null = null;
  #changing = false;
  #granted = false;
  #lastId = 0;
  /** What stood against the promotion that asked over a link which has ended. */
  #left: string | null = null;

  constructor(nodeId: string) {
    this.#nodeId = nodeId;
  }

  /** Null without a link. */
  get peerRole(): Role | null {
    return this.#peer?.role ?? null;
  }

  linkUp(nodeId: string, role: Role): void {
    this.#peer = { nodeId, role };
    this.#asking = null;
    this.#granted = false;
  }

  linkDown(): void {
    this.#left = this.#asking === null ? null : this.#objection();
    this.#peer = null;
    this.#asking = null;
    this.#granted = false;
  }

  /** Whether the promotion needs nobody's consent, cannot be, or begins with a question. */
  ask(): { verdict: Verdict } | { send: ControlMessage; id: number } {
    this.#changing = true;
    this.#left = null;
    if (!this.#peer) return { verdict: { allowed: true, reason: '' } };
    const refusal = this.#objection();
    if (refusal !== null) return { verdict: { allowed: false, reason: refusal } };
    this.#lastId += 1;
    this.#asking = { id: this.#lastId };
    return { send: { type: 'promote?', id: this.#lastId }, id: this.#lastId };
  }

  /**
   * The link ended before the answer came. That leaves the decision to this node, unless it consented to the peer's promotion meanwhile, or
   * heard of it: of two that ask at once one becomes primary (R18). Who asks again does so without a link.
   */
  unanswered(): Verdict {
    if (this.#left === null) return { allowed: true, reason: '' };
    return { allowed: false, reason: `${this.#left}, and the link with it ended meanwhile` };
  }

  /** The promotion ended, well or not; tells the role, and so gives back what the peer granted. */
  settled(role: Role): ControlMessage {
    this.#changing = false;
    this.#asking = null;
    return { type: 'role', role };
  }

  /** A message of the peer: what to answer, and the verdict on the own question if it came. */
  receive(
    message: ControlMessage,
    ownRole: Role,
  ): { answer?: ControlMessage; verdict?: Verdict & { id: number } } {
    if (!this.#peer) return {};
    if (message.type === 'role') {
      this.#peer.role = message.role;
      this.#granted = false;
      return {};
    }
    if (message.type === 'promote?') return { answer: this.#answer(message.id, ownRole) };
    if (message.type === 'bye' || this.#asking?.id !== message.id) return {};
    this.#asking = null;
    const allowed = message.type === 'promote-ok';
    return {
      verdict: {
        id: message.id,
        allowed,
        reason: message.type === 'promote-no' ? message.reason : '',
      },
    };
  }

  #objection(): string | null {
    if (this.#peer?.role === 'primary') return 'the peer is primary';
    if (this.#granted) return 'the peer is being promoted';
    return null;
  }

  #answer(id: number, ownRole: Role): ControlMessage {
    const no = (text: string): ControlMessage => ({ type: 'promote-no', id, reason: text });
    if (ownRole === 'primary') return no('the peer is primary');
    if (this.#changing) {
      // Both asked at once: the lower identity goes first. One that is past the question has the other's consent already.
      const yields = this.#asking !== null && this.#peer!.nodeId < this.#nodeId;
      if (!yields) return no('the peer is being promoted');
    }
    this.#granted = true;
    return { type: 'promote-ok', id };
  }
}
