/**
 * Who is the source: the one decision that each link begins with. A pure function of what both sides told in the
 * handshake; both compute it, and go on only when the results are mirror images of each other.
 *
 * `decide` takes the first row of {@link ROWS} that fits, then passes its result through {@link OVERRIDES}, each of which
 * may replace it. Rows 10 to 100 carry the numbers of DRBD's rules; C, B and H are the current, bitmap and history generations. The
 * other rows are Tidemark's own. docs/PROTOCOL.md has the same table for people.
 *
 * What must hold: for every two copies, decide(a, b) is the mirror image of decide(b, a); a primary is never the target; an
 * Inconsistent copy is never the source (R17); where both sides hold writes that the other has not, nothing is overwritten unless a person
 * said which side yields.
 */
import type { NativeHandshakeState, Protocol, SyncSide } from '../binding/native.ts';
import {
  GENERATION_JUST_CREATED,
  GENERATION_NONE,
  NODE_CRASHED_PRIMARY,
  SLOT_ALL_DIRTY,
  SLOT_FULL_SYNC,
  SLOT_PEER_PRIMARY,
  SLOT_SERVED,
} from './flags.ts';

/** What one side tells of its copy. */
export type CopyState = Omit<NativeHandshakeState, 'serial' | 'idle'> & {
  /** A person said that in a split brain this side yields. */
  discardMine: boolean;
  /** Of both: otherwise there is no decision. */
  protocol: Protocol;
};

export type DecisionKind = 'none' | 'sync' | 'splitBrain' | 'unrelated' | 'refused';

export interface Decision {
  /** 'none': in step, link up; 'sync': link up and resync; otherwise no link. */
  kind: DecisionKind;
  /** Number of the row that gave the result. */
  rule: number;
  side: SyncSide;
  /** Everything, not only what the dirty maps say. */
  full: boolean;
  /** For people. */
  reason: string;
}

type Result = Pick<Decision, 'kind' | 'side' | 'full'>;

interface Row {
  rule: number;
  /** The rule that the other side finds. */
  mirror: number;
  when(mine: CopyState, peer: CopyState): boolean;
  result: Result;
  reason(mine: CopyState, peer: CopyState): string;
}

const NOTHING: Result = { kind: 'none', side: 'none', full: false };
const SOURCE_MAP: Result = { kind: 'sync', side: 'source', full: false };
const SOURCE_FULL: Result = { kind: 'sync', side: 'source', full: true };
const TARGET_MAP: Result = { kind: 'sync', side: 'target', full: false };
const TARGET_FULL: Result = { kind: 'sync', side: 'target', full: true };
const SPLIT_BRAIN: Result = { kind: 'splitBrain', side: 'none', full: false };
const UNRELATED: Result = { kind: 'unrelated', side: 'none', full: false };
const REFUSED: Result = { kind: 'refused', side: 'none', full: false };

type Test = (mine: CopyState, peer: CopyState) => boolean;

const isNone = (generation: string) => generation === GENERATION_NONE;
const isFresh = (copy: CopyState) =>
  isNone(copy.current) || copy.current === GENERATION_JUST_CREATED;
const isInconsistent = (copy: CopyState) => copy.disk === 'Inconsistent';
const isPrimary = (copy: CopyState) => copy.role === 'primary';
const hasNoDisk = (copy: CopyState) => copy.disk === 'Diskless' || copy.disk === 'Failed';
// Letting go of its disk, that node works on the peer's copy, and goes on as long as nobody else has changed it.
const worksDiskless: Test = (mine, peer) =>
  isPrimary(mine) && mine.disk === 'Diskless' && !isPrimary(peer) && !hasNoDisk(peer);
const worksOnPeersCopy: Test = (mine, peer) =>
  worksDiskless(mine, peer) &&
  !isInconsistent(peer) &&
  mine.current === peer.current &&
  (peer.slotFlags & SLOT_SERVED) !== 0 &&
  mine.slot >= 0 &&
  peer.slot >= 0;
const hasCrashed = (copy: CopyState) => (copy.flags & NODE_CRASHED_PRIMARY) !== 0;
const isFullSync = (copy: CopyState) => (copy.slotFlags & SLOT_FULL_SYNC) !== 0;
const isInvalidated = (copy: CopyState) =>
  isInconsistent(copy) && (copy.slotFlags & SLOT_ALL_DIRTY) !== 0;
const isInHistory = (generation: string, copy: CopyState) =>
  !isNone(generation) && copy.history.includes(generation);
const sharesHistory: Test = (mine, peer) => mine.history.some((each) => isInHistory(each, peer));
const sameCurrent: Test = (mine, peer) => mine.current === peer.current;
const bitsLeft: Test = (mine, peer) => mine.dirtyChunks > 0 || peer.dirtyChunks > 0;
const mirrored =
  (test: Test): Test =>
  (mine, peer) =>
    test(peer, mine);

// One's own fitness as a source while nothing was ever shared: being primary counts more than being consistent.
const freshRank = (copy: CopyState) => (isPrimary(copy) ? 2 : 0) + (isInconsistent(copy) ? 0 : 1);

// Rules 34 and 36: the resync that made our generations equal ended there, and here its end was not seen.
const endOfSyncMissed: Test = (mine, peer) =>
  sameCurrent(mine, peer) && isNone(peer.bitmap) && !isNone(mine.bitmap);
const bitmapInPeersHistory: Test = (mine, peer) =>
  endOfSyncMissed(mine, peer) && isInHistory(mine.bitmap, peer);

const oneCrashed: Test = (mine, peer) => hasCrashed(mine) || hasCrashed(peer);
/** Of two that crashed alike: any order will do, as long as both sides find the same. */
const winsTie: Test = (mine, peer) => mine.nodeId < peer.nodeId;

// Rules 42 and 43, equal generations with bits left: the primary, else the one that is not outdated, else the last primary known.
const isSourceOfBits: Test = (mine, peer) => {
  if (isPrimary(mine) !== isPrimary(peer)) return isPrimary(mine);
  if (isPrimary(mine)) return false;
  const mineOutdated = mine.disk === 'Outdated';
  if (mineOutdated !== (peer.disk === 'Outdated')) return !mineOutdated;
  const peerWasPrimary = (mine.slotFlags & SLOT_PEER_PRIMARY) !== 0;
  const mineWasPrimary = (peer.slotFlags & SLOT_PEER_PRIMARY) !== 0;
  return mineWasPrimary && !peerWasPrimary;
};

// Rule 38, R11: a copy is Consistent, and no more, after a flush of it failed. Whatever that lost is marked (R3), and the other has it.
const isWholeBeside: Test = (mine, peer) =>
  sameCurrent(mine, peer) &&
  mine.disk === 'UpToDate' &&
  peer.disk === 'Consistent' &&
  !isPrimary(peer) &&
  (bitsLeft(mine, peer) || oneCrashed(mine, peer)) &&
  !hasFlushedAlone(peer, mine);
// Under protocol A the other need not have it: a flush waits for this disk alone, and makes no generation while they are linked. What the
// failed one was for was never promised; what the ones before it were for is here, and may be nowhere else.
const hasFlushedAlone: Test = (mine, peer) =>
  mine.protocol === 'A' &&
  !isPrimary(peer) &&
  (hasCrashed(mine) !== hasCrashed(peer) ? hasCrashed(mine) : isSourceOfBits(mine, peer));

// Rules 50, 51, 60: my generation lies in the peer's past.
const currentIsPeersBitmap: Test = (mine, peer) =>
  !isNone(mine.current) && mine.current === peer.bitmap;
// The peer had begun a full resync of this copy, moved what it shared with it to the history, and this copy never heard of it. Its map
// is still whole, so that 'by map' leaves nothing out.
const startOfSyncLost: Test = (mine, peer) =>
  !isNone(mine.current) &&
  mine.current === peer.history[0] &&
  !isNone(peer.bitmap) &&
  isFullSync(peer) &&
  peer.dirtyChunks * peer.chunkBytes >= peer.volumeBytes;
// Both count from a point that they shared, and one has left it behind: it was made primary with force in the middle of a full resync.
const bitmapsPartedAt: Test = (mine, peer) =>
  isInHistory(mine.bitmap, peer) || isInHistory(peer.bitmap, mine);
// The peer, a primary, offered that generation as it let go of its disk, and kept the disk, for it never heard that this copy took it. Nobody
// worked on this copy, and both maps count from what was shared before.
const tookOverForNothing: Test = (mine, peer) =>
  isInHistory(mine.current, peer) &&
  (mine.slotFlags & SLOT_SERVED) !== 0 &&
  !isNone(mine.bitmap) &&
  mine.bitmap === peer.bitmap;
const currentInPeersHistory: Test = (mine, peer) => isInHistory(mine.current, peer);
const isBehind: Test = (mine, peer) =>
  currentIsPeersBitmap(mine, peer) ||
  startOfSyncLost(mine, peer) ||
  currentInPeersHistory(mine, peer);

const text = (message: string) => () => message;

/** A row and its mirror image, in this order. */
function both(
  [rule, mirror]: [number, number],
  test: Test,
  [result, opposite]: [Result, Result],
  [reason, other]: [string, string],
): Row[] {
  return [
    { rule, mirror, when: test, result, reason: text(reason) },
    { rule: mirror, mirror: rule, when: mirrored(test), result: opposite, reason: text(other) },
  ];
}

function one(rule: number, when: Test, result: Result, reason: Row['reason']): Row[] {
  return [{ rule, mirror: rule, when, result, reason }];
}

const MAP: [Result, Result] = [SOURCE_MAP, TARGET_MAP];
const MAP_BACK: [Result, Result] = [TARGET_MAP, SOURCE_MAP];
const FULL: [Result, Result] = [SOURCE_FULL, TARGET_FULL];
const FULL_BACK: [Result, Result] = [TARGET_FULL, SOURCE_FULL];

/** The first that fits counts. */
export const ROWS: readonly Row[] = [
  ...one(
    1,
    (mine, peer) => mine.nodeId === peer.nodeId,
    REFUSED,
    (mine) =>
      `the peer has this node's own identity ${mine.nodeId}: it is this node, or its metadata was copied from here`,
  ),
  ...one(
    2,
    (mine, peer) => mine.volumeBytes !== peer.volumeBytes,
    REFUSED,
    (mine, peer) =>
      `the volumes differ in size: ${mine.volumeBytes} bytes here, ${peer.volumeBytes} bytes at the peer`,
  ),
  ...one(
    3,
    (mine, peer) => mine.chunkBytes !== peer.chunkBytes,
    REFUSED,
    (mine, peer) =>
      `the chunk sizes differ: ${mine.chunkBytes} bytes here, ${peer.chunkBytes} bytes at the peer`,
  ),
  ...both(
    [13, 14],
    worksOnPeersCopy,
    [NOTHING, NOTHING],
    [
      "this node lost its disk and works on the peer's copy",
      'the peer lost its disk and works on this copy',
    ],
  ),
  ...both(
    [15, 16],
    worksDiskless,
    [REFUSED, REFUSED],
    [
      "this node lost its disk, and the peer's copy is not the one that it worked on: make this node secondary, then repair or replace its disk and start its daemon again",
      'the peer lost its disk, and this copy is not the one that it worked on: make the peer secondary, then repair or replace its disk and start its daemon again',
    ],
  ),
  ...one(
    4,
    (mine, peer) => hasNoDisk(mine) || hasNoDisk(peer),
    REFUSED,
    (mine, peer) =>
      `a disk is missing (${mine.disk} here, ${peer.disk} at the peer): repair or replace it, and start that node's daemon again`,
  ),
  ...one(
    5,
    (mine, peer) => isInconsistent(mine) && isInconsistent(peer),
    REFUSED,
    (mine, peer) =>
      isFresh(mine) && isFresh(peer)
        ? 'both copies are new: make the one whose content counts primary with force'
        : 'both copies are Inconsistent: neither can be the source; make one primary with force to accept its content',
  ),
  ...both(
    [6, 7],
    (mine, peer) =>
      isInconsistent(mine) &&
      currentIsPeersBitmap(mine, peer) &&
      (isFullSync(mine) || isFullSync(peer)),
    MAP_BACK,
    ['a full resync of this copy goes on', 'the full resync of the peer goes on'],
  ),
  ...both([8, 9], isInvalidated, FULL_BACK, [
    'this copy was invalidated',
    "the peer's copy was invalidated",
  ]),
  ...both(
    [11, 12],
    (mine, peer) => isFresh(mine) && isFresh(peer) && freshRank(mine) > freshRank(peer),
    FULL,
    ['both are new, and this copy is in use', "both are new, and the peer's copy is in use"],
  ),
  ...one(
    10,
    (mine, peer) => isFresh(mine) && isFresh(peer),
    NOTHING,
    text('both copies are new and unused'),
  ),
  ...both([20, 30], isFresh, FULL_BACK, ['this copy is new', "the peer's copy is new"]),
  ...both([38, 39], isWholeBeside, MAP, [
    "the peer's disk may have lost what a failed flush was for",
    'this disk may have lost what a failed flush was for',
  ]),
  ...both([34, 35], bitmapInPeersHistory, MAP, [
    'the end of the last resync was not seen here',
    'the end of the last resync was not seen by the peer',
  ]),
  ...both([36, 37], endOfSyncMissed, MAP, [
    'this copy tracked the peer, which forgot',
    'the peer tracked this copy, which forgot',
  ]),
  ...both(
    [41, 41],
    (mine, peer) =>
      sameCurrent(mine, peer) &&
      oneCrashed(mine, peer) &&
      isPrimary(mine) !== isPrimary(peer) &&
      isPrimary(mine),
    MAP,
    ['after a crash, this copy is primary', 'after a crash, the peer is primary'],
  ),
  ...both(
    [40, 40],
    (mine, peer) =>
      sameCurrent(mine, peer) && hasCrashed(mine) && (!hasCrashed(peer) || winsTie(mine, peer)),
    MAP,
    ['this node crashed as primary', 'the peer crashed as primary'],
  ),
  ...both(
    [42, 43],
    (mine, peer) => sameCurrent(mine, peer) && bitsLeft(mine, peer) && isSourceOfBits(mine, peer),
    MAP,
    [
      'equal generations with chunks marked; this copy was primary last',
      'equal generations with chunks marked; the peer was primary last',
    ],
  ),
  ...one(
    44,
    (mine, peer) => sameCurrent(mine, peer) && bitsLeft(mine, peer),
    REFUSED,
    (mine, peer) =>
      `the generations are equal, but ${mine.dirtyChunks} chunks are marked here and ${peer.dirtyChunks} at the peer, ` +
      'and none of the two is known as the last primary: invalidate the copy that is to yield',
  ),
  ...one(40, sameCurrent, NOTHING, text('both copies are in step')),
  ...one(
    45,
    (mine, peer) => isBehind(mine, peer) && isBehind(peer, mine),
    SPLIT_BRAIN,
    text("each copy's generation lies in the other's past"),
  ),
  ...both([50, 70], currentIsPeersBitmap, MAP_BACK, [
    'the peer has changed since they were in step',
    'this copy has changed since they were in step',
  ]),
  ...both([51, 71], startOfSyncLost, MAP_BACK, [
    'the start of a resync never got here',
    'the start of a resync never got to the peer',
  ]),
  ...both([52, 72], tookOverForNothing, MAP_BACK, [
    'the peer had lost its disk and has it again: nothing came of its work on this copy',
    "this node had lost its disk and has it again: nothing came of its work on the peer's copy",
  ]),
  ...both([60, 80], currentInPeersHistory, FULL_BACK, [
    "this copy's generation is in the peer's history",
    "the peer's generation is in the history here",
  ]),
  ...one(
    90,
    (mine, peer) => !isNone(mine.bitmap) && mine.bitmap === peer.bitmap,
    SPLIT_BRAIN,
    text('both copies were written while apart'),
  ),
  ...one(
    91,
    bitmapsPartedAt,
    SPLIT_BRAIN,
    text('both copies were written after a resync broke off'),
  ),
  ...one(100, sharesHistory, SPLIT_BRAIN, text('both copies were written while apart, long ago')),
  ...one(
    101,
    () => true,
    UNRELATED,
    text('the two copies have no generation in common: they hold unrelated data'),
  ),
];

/** Row 100 and the contradiction of 45 leave no dirty maps that count from the same point. */
const mapsCount = (decision: Decision) => decision.rule === 90;

/** A primary would be the target. */
export const RULE_PRIMARY_TARGET = 113;

/** Applied in this order to what the row said; null leaves it. */
const OVERRIDES: ReadonlyArray<
  (decision: Decision, mine: CopyState, peer: CopyState) => Decision | null
> = [
  // A half-done copy holds nothing that could be lost, and can serve nobody (R17).
  (decision, mine, peer) => {
    if (isInconsistent(mine) === isInconsistent(peer)) return null;
    const side: SyncSide = isInconsistent(mine) ? 'target' : 'source';
    if (decision.kind === 'refused' || decision.kind === 'unrelated' || decision.side === side) {
      return null;
    }
    const full =
      decision.kind === 'sync' || (decision.kind === 'splitBrain' && !mapsCount(decision));
    const whose = side === 'target' ? 'this copy' : "the peer's copy";
    return { kind: 'sync', rule: 110, side, full, reason: `${whose} is Inconsistent` };
  },
  // A person said which side yields.
  (decision, mine, peer) => {
    if (decision.kind !== 'splitBrain' || mine.discardMine === peer.discardMine) return null;
    const side: SyncSide = mine.discardMine ? 'target' : 'source';
    const whose = mine.discardMine ? 'this side yields' : 'the peer yields';
    const reason = `${decision.reason}; ${whose}`;
    return { kind: 'sync', rule: 111, side, full: !mapsCount(decision), reason };
  },
  (decision, mine, peer) => {
    if (!isPrimary(mine) || !isPrimary(peer)) return null;
    if (decision.kind !== 'none' && decision.kind !== 'sync') return null;
    return { ...REFUSED, rule: 112, reason: 'both nodes are primary' };
  },
  (decision, mine, peer) => {
    if (decision.kind !== 'sync') return null;
    if (!isPrimary(decision.side === 'target' ? mine : peer)) return null;
    const who =
      decision.side === 'target'
        ? 'this node is primary, but its copy would be the target'
        : 'the peer is primary, but its copy would be the target';
    return { ...REFUSED, rule: RULE_PRIMARY_TARGET, reason: `${who} (${decision.reason})` };
  },
];

/** What is to be done between this copy and the peer's, seen from here. */
export function decide(mine: CopyState, peer: CopyState): Decision {
  const row = ROWS.find((each) => each.when(mine, peer))!;
  let decision: Decision = { ...row.result, rule: row.rule, reason: row.reason(mine, peer) };
  for (const override of OVERRIDES) decision = override(decision, mine, peer) ?? decision;
  return decision;
}

const MIRROR_RULES = new Map(ROWS.map((row) => [row.rule, row.mirror]));
const MIRROR_SIDES: Record<SyncSide, SyncSide> = {
  none: 'none',
  source: 'target',
  target: 'source',
};

/** True when two sides found the same thing, each from its own place. */
export function isMirror(mine: Omit<Decision, 'reason'>, peer: Omit<Decision, 'reason'>): boolean {
  return (
    mine.kind === peer.kind &&
    mine.full === peer.full &&
    MIRROR_SIDES[mine.side] === peer.side &&
    (MIRROR_RULES.get(mine.rule) ?? mine.rule) === peer.rule
  );
}
