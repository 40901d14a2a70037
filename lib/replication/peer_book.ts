/**
 * Which identity belongs to which configured peer. A slot of the metadata belongs to an identity (R8); the config knows
 * names. The first meeting binds the two, and the slot's name keeps it over restarts.
 */
import type { NativeStatus } from '../binding/native.ts';

type Slots = NativeStatus['peers'];

/** What the slot keeps of a name (csrc/core/superblock.h). */
const SLOT_NAME_BYTES = 31;

export class PeerBook {
  readonly #names: readonly string[];
  readonly #slots: () => Slots;
  /** Met since this process started. */
  readonly #met = new Map<string, string>();

  constructor(names: readonly string[], slots: () => Slots) {
    this.#names = names;
    this.#slots = slots;
  }

  met(name: string, nodeId: string): void {
    this.#met.set(name, nodeId);
  }

  /** '' and -1 while never met. */
  find(name: string): { nodeId: string; slot: number } {
    const slots = this.#slots();
    const met = this.#met.get(name);
    const slot = slots.find((each) =>
      met === undefined ? each.name === cutName(name) : each.nodeId === met,
    );
    return { nodeId: slot?.nodeId ?? met ?? '', slot: slot?.slot ?? -1 };
  }

  /** Why this is not the peer that had the name before, which only a blank disk in its place may be; null: it is. */
  otherIdentity(name: string, nodeId: string): string | null {
    const bound = this.#slots().find((each) => each.name === cutName(name));
    if (!bound || bound.nodeId === nodeId) return null;
    return (
      `'${name}' had identity ${bound.nodeId} before and has ${nodeId} now: another node uses its name, ` +
      "or another disk is in its place; if its data is worth nothing, make it anew with 'tidemark create --force'"
    );
  }

  /** Why this identity cannot be the peer of this name; null: it can. */
  objection(name: string, nodeId: string): string | null {
    const slots = this.#slots();
    const other = slots.find((each) => each.nodeId === nodeId)?.name;
    const rival = this.#names.find((each) => each !== name && cutName(each) === other);
    if (rival !== undefined) {
      return `'${name}' has the identity ${nodeId}, which belongs to the peer '${rival}'`;
    }
    return null;
  }
}

/** Cut as the metadata cuts it: by bytes, at a character. */
function cutName(name: string): string {
  const bytes = Buffer.from(name);
  let end = Math.min(bytes.length, SLOT_NAME_BYTES);
  while (end < bytes.length && end > 0 && (bytes[end]! & 0xc0) === 0x80) end -= 1;
  return bytes.toString('utf8', 0, end);
}
