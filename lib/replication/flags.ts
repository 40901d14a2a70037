/** Bits and special values of the metadata that decisions look at: the mirror of csrc/core/superblock.h. */

/** Flags of the node. */
export const NODE_CONSISTENT = 1 << 0;
export const NODE_WAS_UP_TO_DATE = 1 << 1;
export const NODE_OUTDATED = 1 << 2;
export const NODE_PRIMARY = 1 << 3;
export const NODE_ATTACHED = 1 << 4;
/** Crashed as primary, and no peer was told yet. */
export const NODE_CRASHED_PRIMARY = 1 << 5;

/** Flags of a peer's slot. */
export const SLOT_IN_USE = 1 << 0;
export const SLOT_ALL_DIRTY = 1 << 1;
export const SLOT_PEER_OUTDATED = 1 << 2;
export const SLOT_FULL_SYNC = 1 << 3;
export const SLOT_PEER_PRIMARY = 1 << 4;
/** The source offered its generation, and does not know whether the target took it over (R7). */
export const SLOT_SYNC_ENDING = 1 << 5;
/** The peer lost its disk and worked on this copy: it shares the current generation. */
export const SLOT_SERVED = 1 << 6;

/** Generations: none, and what `tidemark create` writes. */
export const GENERATION_NONE = '0000000000000000';
export const GENERATION_JUST_CREATED = '0000000000000001';

/** Generations kept in the history. */
export const HISTORY_LENGTH = 8;

export const NO_NODE_ID = '0'.repeat(32);
