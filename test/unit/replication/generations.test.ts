import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { DiskState, Protocol, Role } from '../../../lib/binding/native.ts';
import {
  GENERATION_JUST_CREATED,
  GENERATION_NONE,
  HISTORY_LENGTH,
  NODE_CONSISTENT,
  NODE_CRASHED_PRIMARY,
  SLOT_ALL_DIRTY,
  SLOT_FULL_SYNC,
  SLOT_IN_USE,
  SLOT_PEER_PRIMARY,
  SLOT_SERVED,
} from '../../../lib/replication/flags.ts';
import {
  type CopyState,
  type Decision,
  decide,
  isMirror,
  ROWS,
} from '../../../lib/replication/generations.ts';
import { seededRandom } from './random.ts';

const NONE = GENERATION_NONE;
const FRESH = GENERATION_JUST_CREATED;
const gen = (n: number) => n.toString(16).padStart(16, '0');
const [C1, C2, B1, B2, S] = [gen(0xc1), gen(0xc2), gen(0xb1), gen(0xb2), gen(0x5)];
const past = (...generations: string[]) => [
  ...generations,
  ...new Array<string>(HISTORY_LENGTH - generations.length).fill(NONE),
];

function copy(nodeId: string, changes: Partial<CopyState> = {}): CopyState {
  return {
    role: 'secondary',
    disk: 'UpToDate',
    volumeBytes: 1 << 20,
    chunkBytes: 4096,
    nodeId: nodeId.repeat(32),
    current: C1,
    bitmap: NONE,
    history: past(),
    flags: NODE_CONSISTENT,
    slot: 0,
    slotFlags: SLOT_IN_USE,
    dirtyChunks: 0,
    discardMine: false,
    protocol: 'C',
    ...changes,
  };
}

type Expected = Pick<Decision, 'kind' | 'side' | 'full'>;
const NOTHING: Expected = { kind: 'none', side: 'none', full: false };
const SOURCE: Expected = { kind: 'sync', side: 'source', full: false };
const SOURCE_FULL: Expected = { kind: 'sync', side: 'source', full: true };
const TARGET: Expected = { kind: 'sync', side: 'target', full: false };
const TARGET_FULL: Expected = { kind: 'sync', side: 'target', full: true };
const SPLIT: Expected = { kind: 'splitBrain', side: 'none', full: false };
const UNRELATED: Expected = { kind: 'unrelated', side: 'none', full: false };
const REFUSED: Expected = { kind: 'refused', side: 'none', full: false };

const opposite = (expected: Expected): Expected => ({
  ...expected,
  side: expected.side === 'none' ? 'none' : expected.side === 'source' ? 'target' : 'source',
});

interface Case {
  name: string;
  rule: number;
  /** The rule that the other side finds; the same without. */
  mirror?: number;
  mine?: Partial<CopyState>;
  peer?: Partial<CopyState>;
  expect: Expected;
  reason?: RegExp;
}

const LOST: Partial<CopyState> = { role: 'primary', disk: 'Diskless' };

const CASES: Case[] = [
  { name: 'itself', rule: 1, peer: { nodeId: 'a'.repeat(32) }, expect: REFUSED },
  {
    name: 'another size, both named',
    rule: 2,
    peer: { volumeBytes: 4096 },
    expect: REFUSED,
    reason: /(1048576.*4096|4096.*1048576)/,
  },
  {
    name: 'another chunk size, both named',
    rule: 3,
    peer: { chunkBytes: 65536 },
    expect: REFUSED,
    reason: /(4096.*65536|65536.*4096)/,
  },
  { name: 'no disk', rule: 4, peer: { disk: 'Diskless' }, expect: REFUSED, reason: /repair/ },
  { name: 'no disk, both', rule: 4, mine: LOST, peer: { disk: 'Failed' }, expect: REFUSED },
  {
    name: 'a primary that lost its disk, and the copy that it works on',
    rule: 13,
    mirror: 14,
    mine: LOST,
    peer: { slotFlags: SLOT_IN_USE | SLOT_SERVED, bitmap: B1, dirtyChunks: 5 },
    expect: NOTHING,
  },
  {
    name: 'the same, and the copy was told to be outdated',
    rule: 13,
    mirror: 14,
    mine: LOST,
    peer: { slotFlags: SLOT_IN_USE | SLOT_SERVED, disk: 'Outdated' },
    expect: NOTHING,
  },
  {
    name: 'a primary that lost its disk, and a copy that was changed meanwhile',
    rule: 15,
    mirror: 16,
    mine: LOST,
    peer: { current: C2, slotFlags: SLOT_IN_USE | SLOT_SERVED, history: past(C1) },
    expect: REFUSED,
    reason: /secondary/,
  },
  {
    name: 'a primary that lost its disk, and a copy that it never worked on',
    rule: 15,
    mirror: 16,
    mine: LOST,
    expect: REFUSED,
  },
  {
    name: 'a primary that lost its disk, and half a copy',
    rule: 15,
    mirror: 16,
    mine: LOST,
    peer: { slotFlags: SLOT_IN_USE | SLOT_SERVED, disk: 'Inconsistent' },
    expect: REFUSED,
  },
  {
    name: 'both Inconsistent',
    rule: 5,
    mine: { disk: 'Inconsistent' },
    peer: { disk: 'Inconsistent' },
    expect: REFUSED,
  },
  {
    name: 'an interrupted full resync goes on by map',
    rule: 6,
    mirror: 7,
    mine: { disk: 'Inconsistent', current: S, slotFlags: SLOT_FULL_SYNC | SLOT_ALL_DIRTY },
    peer: { current: C2, bitmap: S, slotFlags: SLOT_FULL_SYNC },
    expect: TARGET,
  },
  {
    name: 'an invalidated copy',
    rule: 8,
    mirror: 9,
    mine: { disk: 'Inconsistent', slotFlags: SLOT_ALL_DIRTY },
    expect: TARGET_FULL,
  },
  {
    name: 'an invalidated copy of unrelated data',
    rule: 8,
    mirror: 9,
    mine: { disk: 'Inconsistent', slotFlags: SLOT_ALL_DIRTY },
    peer: { current: C2 },
    expect: TARGET_FULL,
  },
  {
    name: 'both just created',
    rule: 10,
    mine: { current: FRESH },
    peer: { current: NONE },
    expect: NOTHING,
  },
  {
    name: 'both just created, one in use',
    rule: 11,
    mirror: 12,
    mine: { current: FRESH, role: 'primary' },
    peer: { current: FRESH, disk: 'Inconsistent' },
    expect: SOURCE_FULL,
  },
  {
    name: 'mine just created',
    rule: 20,
    mirror: 30,
    mine: { current: FRESH },
    expect: TARGET_FULL,
  },
  { name: 'mine is nothing', rule: 20, mirror: 30, mine: { current: NONE }, expect: TARGET_FULL },
  {
    name: 'I missed the end of a resync, as the history shows',
    rule: 34,
    mirror: 35,
    mine: { bitmap: B1 },
    peer: { history: past(B2, B1) },
    expect: SOURCE,
  },
  {
    name: 'only I track the other',
    rule: 36,
    mirror: 37,
    mine: { bitmap: B1 },
    expect: SOURCE,
  },
  {
    name: 'the flush of a disk failed while it was primary, and a copy in step until then',
    rule: 38,
    mirror: 39,
    peer: { disk: 'Consistent', flags: NODE_CRASHED_PRIMARY, dirtyChunks: 7 },
    expect: SOURCE,
  },
  {
    name: 'the same, and this one missed the end of a resync',
    rule: 38,
    mirror: 39,
    mine: { bitmap: B1 },
    peer: { disk: 'Consistent', dirtyChunks: 7 },
    expect: SOURCE,
  },
  {
    name: 'the same under protocol A: what was flushed there may not have come here',
    rule: 40,
    mine: { protocol: 'A' },
    peer: { protocol: 'A', disk: 'Consistent', flags: NODE_CRASHED_PRIMARY, dirtyChunks: 7 },
    expect: TARGET,
  },
  {
    name: 'the same under protocol A, and a peer has been told of the crash',
    rule: 43,
    mirror: 42,
    mine: { protocol: 'A', slotFlags: SLOT_IN_USE | SLOT_PEER_PRIMARY },
    peer: { protocol: 'A', disk: 'Consistent', dirtyChunks: 7 },
    expect: TARGET,
  },
  {
    name: 'the same under protocol A, and this copy is in use meanwhile',
    rule: 38,
    mirror: 39,
    mine: { protocol: 'A', role: 'primary' },
    peer: { protocol: 'A', disk: 'Consistent', flags: NODE_CRASHED_PRIMARY, dirtyChunks: 7 },
    expect: SOURCE,
  },
  {
    name: 'the same under protocol A, and this node was primary last',
    rule: 38,
    mirror: 39,
    mine: { protocol: 'A' },
    peer: {
      protocol: 'A',
      disk: 'Consistent',
      slotFlags: SLOT_IN_USE | SLOT_PEER_PRIMARY,
      dirtyChunks: 7,
    },
    expect: SOURCE,
  },
  {
    name: 'the same under protocol A, and both crashed as primaries',
    rule: 38,
    mirror: 39,
    mine: { protocol: 'A', flags: NODE_CRASHED_PRIMARY },
    peer: { protocol: 'A', disk: 'Consistent', flags: NODE_CRASHED_PRIMARY, dirtyChunks: 7 },
    expect: SOURCE,
  },
  {
    name: 'the flush of a disk failed, and nothing was lost',
    rule: 40,
    peer: { disk: 'Consistent' },
    expect: NOTHING,
  },
  { name: 'in step', rule: 40, expect: NOTHING },
  {
    name: 'in step, and one is primary',
    rule: 40,
    mine: { role: 'primary' },
    expect: NOTHING,
  },
  {
    name: 'I crashed as primary',
    rule: 40,
    mine: { flags: NODE_CRASHED_PRIMARY },
    expect: SOURCE,
  },
  {
    name: 'both crashed as primary: the lower identity',
    rule: 40,
    mine: { flags: NODE_CRASHED_PRIMARY },
    peer: { flags: NODE_CRASHED_PRIMARY },
    expect: SOURCE,
  },
  {
    name: 'a live primary is the source for a crashed one',
    rule: 41,
    mine: { flags: NODE_CRASHED_PRIMARY },
    peer: { role: 'primary' },
    expect: TARGET,
  },
  {
    name: 'a crashed one that is primary again',
    rule: 41,
    mine: { flags: NODE_CRASHED_PRIMARY, role: 'primary' },
    peer: { flags: NODE_CRASHED_PRIMARY },
    expect: SOURCE,
  },
  {
    name: 'crashed, and both are primary now',
    rule: 112,
    mine: { flags: NODE_CRASHED_PRIMARY, role: 'primary' },
    peer: { role: 'primary' },
    expect: REFUSED,
  },
  {
    name: 'bits left: the primary is the source',
    rule: 42,
    mirror: 43,
    mine: { role: 'primary' },
    peer: { dirtyChunks: 1 },
    expect: SOURCE,
  },
  {
    name: 'bits left: the outdated is not',
    rule: 42,
    mirror: 43,
    mine: { dirtyChunks: 1 },
    peer: { disk: 'Outdated' },
    expect: SOURCE,
  },
  {
    name: 'bits left: the last primary is the source',
    rule: 42,
    mirror: 43,
    mine: { dirtyChunks: 3 },
    peer: { slotFlags: SLOT_PEER_PRIMARY },
    expect: SOURCE,
  },
  {
    name: 'bits left, and nobody was primary: ask',
    rule: 44,
    mine: { dirtyChunks: 3 },
    expect: REFUSED,
    reason: /invalidate/,
  },
  {
    name: 'bits left, and both say that the other was primary: ask',
    rule: 44,
    mine: { dirtyChunks: 3, slotFlags: SLOT_PEER_PRIMARY },
    peer: { slotFlags: SLOT_PEER_PRIMARY },
    expect: REFUSED,
  },
  {
    name: 'each in the past of the other',
    rule: 45,
    mine: { current: C1, bitmap: C2 },
    peer: { current: C2, history: past(C1) },
    expect: SPLIT,
  },
  {
    name: 'the peer changed since',
    rule: 50,
    mirror: 70,
    peer: { current: C2, bitmap: C1 },
    expect: TARGET,
  },
  {
    name: 'the peer changed since, and this one had crashed as primary before',
    rule: 50,
    mirror: 70,
    mine: { flags: NODE_CRASHED_PRIMARY },
    peer: { current: C2, bitmap: C1, role: 'primary' },
    expect: TARGET,
  },
  {
    name: 'the start of a full resync was lost',
    rule: 51,
    mirror: 71,
    peer: {
      current: C2,
      bitmap: S,
      history: past(C1),
      slotFlags: SLOT_FULL_SYNC,
      dirtyChunks: 256,
    },
    expect: TARGET,
  },
  {
    name: 'a full resync that had begun, and a copy older than it',
    rule: 60,
    mirror: 80,
    peer: { current: C2, bitmap: S, history: past(C1), slotFlags: SLOT_FULL_SYNC, dirtyChunks: 9 },
    expect: TARGET_FULL,
  },
  {
    name: 'the primary lets go of its disk, and keeps it: this copy has the generation offered for nothing',
    rule: 52,
    mirror: 72,
    mine: { bitmap: B1, slotFlags: SLOT_IN_USE | SLOT_SERVED },
    peer: { current: C2, bitmap: B1, history: past(C1), dirtyChunks: 2 },
    expect: TARGET,
  },
  {
    name: 'the same, and the maps do not count from the same generation any more',
    rule: 60,
    mirror: 80,
    mine: { bitmap: B1, slotFlags: SLOT_IN_USE | SLOT_SERVED },
    peer: { current: C2, bitmap: B2, history: past(C1), dirtyChunks: 2 },
    expect: TARGET_FULL,
  },
  {
    name: 'the same, and this copy was written since',
    rule: 90,
    mine: { current: S, bitmap: B1 },
    peer: { current: C2, bitmap: B1, history: past(C1), dirtyChunks: 2 },
    expect: SPLIT,
  },
  {
    name: 'long behind',
    rule: 60,
    mirror: 80,
    peer: { current: C2, bitmap: B1, history: past(B2, C1) },
    expect: TARGET_FULL,
  },
  {
    name: 'both changed since',
    rule: 90,
    mine: { bitmap: B1 },
    peer: { current: C2, bitmap: B1 },
    expect: SPLIT,
  },
  {
    name: 'made primary with force in the middle of its first full resync',
    rule: 91,
    mine: { bitmap: S, slotFlags: SLOT_IN_USE | SLOT_FULL_SYNC },
    peer: { current: C2, bitmap: B2, history: past(S), role: 'primary' },
    expect: SPLIT,
  },
  {
    name: 'both changed long since',
    rule: 100,
    mine: { history: past(B1) },
    peer: { current: C2, history: past(B2, B1) },
    expect: SPLIT,
  },
  { name: 'nothing in common', rule: 101, peer: { current: C2 }, expect: UNRELATED },
  {
    name: 'half-done and equal: never the source',
    rule: 110,
    mine: { disk: 'Inconsistent', flags: NODE_CRASHED_PRIMARY },
    expect: TARGET_FULL,
  },
  {
    name: 'half-done and in step: by map',
    rule: 110,
    mine: { disk: 'Inconsistent' },
    expect: TARGET,
  },
  {
    name: 'half-done in a split brain: it has nothing to lose',
    rule: 110,
    mine: { disk: 'Inconsistent', bitmap: B1 },
    peer: { current: C2, bitmap: B1 },
    expect: TARGET,
  },
  {
    name: 'half-done of unrelated data: a person must say so',
    rule: 101,
    mine: { disk: 'Inconsistent' },
    peer: { current: C2 },
    expect: UNRELATED,
  },
  {
    name: 'split brain, this side yields by map',
    rule: 111,
    mine: { bitmap: B1, discardMine: true },
    peer: { current: C2, bitmap: B1, role: 'primary' },
    expect: TARGET,
  },
  {
    name: 'old split brain, this side yields in full',
    rule: 111,
    mine: { history: past(B1), discardMine: true },
    peer: { current: C2, history: past(B1) },
    expect: TARGET_FULL,
  },
  {
    name: 'split brain, both yield: nobody does',
    rule: 90,
    mine: { bitmap: B1, discardMine: true },
    peer: { current: C2, bitmap: B1, discardMine: true },
    expect: SPLIT,
  },
  {
    name: 'yielding counts in a split brain only',
    rule: 101,
    mine: { discardMine: true },
    peer: { current: C2 },
    expect: UNRELATED,
  },
  {
    name: 'a primary does not yield',
    rule: 113,
    mine: { bitmap: B1, discardMine: true, role: 'primary' },
    peer: { current: C2, bitmap: B1 },
    expect: REFUSED,
  },
  {
    name: 'both primary and both written: split brain, said so',
    rule: 90,
    mine: { bitmap: B1, role: 'primary' },
    peer: { current: C2, bitmap: B1, role: 'primary' },
    expect: SPLIT,
  },
  {
    name: 'both primary',
    rule: 112,
    mine: { role: 'primary' },
    peer: { role: 'primary' },
    expect: REFUSED,
  },
  {
    name: 'a primary that would be the target',
    rule: 113,
    mine: { role: 'primary' },
    peer: { current: C2, bitmap: C1 },
    expect: REFUSED,
  },
];

for (const each of CASES) {
  const mine = copy('a', each.mine);
  const peer = copy('b', each.peer);
  test(`rule ${each.rule}: ${each.name}`, () => {
    const decision = decide(mine, peer);
    const { reason, ...rest } = decision;
    assert.equal(rest, { ...each.expect, rule: each.rule });
    if (each.reason) assert.match(reason, each.reason);
    assert.ok(reason.length > 0);
  });
  test(`rule ${each.mirror ?? each.rule}: mirror image of: ${each.name}`, () => {
    const decision = decide(peer, mine);
    const { reason, ...rest } = decision;
    assert.equal(rest, { ...opposite(each.expect), rule: each.mirror ?? each.rule });
    if (each.reason) assert.match(reason, each.reason);
    assert.ok(isMirror(decide(mine, peer), decision));
  });
}

test('every row has a case or is the mirror image of one', () => {
  const covered = new Set(CASES.flatMap((each) => [each.rule, each.mirror ?? each.rule]));
  for (const row of ROWS) assert.ok(covered.has(row.rule), `rule ${row.rule}`);
});

const random = seededRandom();

function randomCopy(nodeId: string, protocol: Protocol = 'C'): CopyState {
  // Few different values, so that they meet.
  const generations = [NONE, NONE, FRESH, gen(2), gen(3), gen(4), gen(5)];
  const generation = () => random.pick(generations);
  const roles: Role[] = ['primary', 'secondary', 'secondary'];
  const disks: DiskState[] = ['UpToDate', 'UpToDate', 'Consistent', 'Outdated', 'Inconsistent'];
  const noDisks: DiskState[] = ['Failed', 'Diskless'];
  return copy(nodeId, {
    role: random.pick(roles),
    disk: random.below(50) === 0 ? random.pick(noDisks) : random.pick(disks),
    chunkBytes: random.below(50) === 0 ? 8192 : 4096,
    volumeBytes: random.below(50) === 0 ? 1 << 21 : 1 << 20,
    current: random.below(3) === 0 ? gen(2) : generation(),
    bitmap: generation(),
    history: past(...Array.from({ length: random.below(4) }, generation)),
    flags: random.below(64),
    slotFlags: random.below(128),
    dirtyChunks: random.pick([0, 0, 1, 256]),
    discardMine: random.below(4) === 0,
    protocol,
  });
}

test('both sides always find mirror images, and what must hold holds', () => {
  const seen = new Map<number, number>();
  for (let i = 0; i < 100_000; i++) {
    const protocol = random.pick<Protocol>(['A', 'C']);
    const a = randomCopy('a', protocol);
    const b = randomCopy('b', protocol);
    const mine = decide(a, b);
    const peer = decide(b, a);
    const where = () =>
      `seed ${random.seed}, try ${i}: ${JSON.stringify({ a, b, mine, peer }, null, 1)}`;
    seen.set(mine.rule, (seen.get(mine.rule) ?? 0) + 1);
    if (!isMirror(mine, peer) || !isMirror(peer, mine)) assert.unreachable(where());
    if ((mine.kind === 'sync') !== (mine.side !== 'none')) assert.unreachable(where());
    if (mine.full && mine.kind !== 'sync') assert.unreachable(where());
    if (mine.kind !== 'sync' && mine.kind !== 'none') continue;
    const [source, target] = mine.side === 'source' ? [a, b] : [b, a];
    if (mine.side !== 'none' && target.role === 'primary') assert.unreachable(where());
    if (mine.side !== 'none' && source.disk === 'Inconsistent') assert.unreachable(where());
    const lost = [a, b].filter(({ disk }) => disk === 'Failed' || disk === 'Diskless');
    if (lost.length > 0 && (mine.kind === 'sync' || lost[0]!.role !== 'primary')) {
      assert.unreachable(where());
    }
    if (mine.kind === 'none' && (a.disk === 'Inconsistent' || b.disk === 'Inconsistent')) {
      assert.unreachable(where());
    }
    if (a.role === 'primary' && b.role === 'primary') assert.unreachable(where());
    if (lost.length === 0 && a.current === b.current && mine.kind === 'none' && a.current > FRESH) {
      if (a.dirtyChunks + b.dirtyChunks > 0) assert.unreachable(where());
    }
  }
  const rules = [...ROWS.map((row) => row.rule), 110, 111, 112, 113];
  const missed = rules.filter((rule) => rule !== 1 && !seen.has(rule));
  assert.equal(missed, [], `seed ${random.seed}: rules never reached`);
});

test('two copies of which both were written apart are never joined unless one yields', () => {
  for (let i = 0; i < 20_000; i++) {
    const a = randomCopy('a');
    const b = randomCopy('b');
    const states = { volumeBytes: 1, chunkBytes: 4096, disk: 'UpToDate', discardMine: false };
    Object.assign(a, states, { current: gen(10), bitmap: gen(12) });
    Object.assign(b, states, { current: gen(11), bitmap: gen(12) });
    assert.is(decide(a, b).kind, 'splitBrain', `seed ${random.seed}, try ${i}`);
  }
});

test.run();
