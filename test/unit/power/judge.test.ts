// The judge must find each kind of broken promise, or what it finds nothing in proves nothing.
import { strict as assert } from 'node:assert';
import { suite } from 'uvu';
import type { AttachReport } from '../../../lib/binding/native.ts';
import { Judge, type Moment, type Recovered } from '../../power/judge.ts';
import { NodeFlag, SlotFlag } from '../../power/metadata.ts';
import type { RecordingJson } from '../../power/recording.ts';

const SECTORS = 32;
const CHUNKS = 4;

const RECORD: RecordingJson = {
  name: 'made by hand',
  protocol: 'C',
  logExtents: 7,
  metadata: 'internal-end',
  cut: 'both',
  fua: false,
  diskBytes: 1 << 20,
  betweenMax: 0,
  reunions: 0,
  tamper: false,
  seed: 1,
  chronicle: {
    sectors: SECTORS,
    writes: [
      [0, 8],
      [8, 8],
      [0, 8],
    ],
    answered: [1, 2, 3],
    // Write 1 was promised before write 3 was begun.
    promises: [{ answered: 1 }, { answered: 2 }],
  },
};
const PROMISES_AT = Uint32Array.of(0, 0, 0, 1);

const REPORT: AttachReport = {
  volumeBytes: SECTORS * 512,
  blockBytes: 512,
  directIo: false,
  crashed: true,
  crashedPrimary: true,
  replayedExtents: 1,
  replayedChunks: 1,
  warnings: [],
};

/** Write numbers of the four chunks. */
function node(numbers: number[], map: number[], flags: number): Recovered {
  return {
    report: REPORT,
    numbers: Uint32Array.from({ length: SECTORS }, (_, sector) => numbers[sector >> 3]!),
    metadata: {
      serial: 1,
      flags,
      current: 1n,
      areaOffset: 0,
      areaBytes: 4096,
      dataOffset: 0,
      volumeBytes: SECTORS * 512,
      chunkBytes: 4096,
      slots: [{ flags: SlotFlag.inUse, shared: 0n, map: Uint8Array.from(map) }],
    },
  };
}

const WHOLE = NodeFlag.consistent | NodeFlag.wasUpToDate;

function moment(change: Partial<Moment> = {}): Moment {
  return {
    promises: 1,
    bare: true,
    phase: 'running',
    primary: node([1, 2, 0, 0], [0, 1, 0, 0], WHOLE | NodeFlag.crashedPrimary),
    secondary: node([1, 0, 0, 0], [0, 0, 0, 0], WHOLE),
    ...change,
  };
}

function judged(change: Partial<Moment> = {}) {
  return new Judge(RECORD, PROMISES_AT).check(moment(change));
}

const test = suite('the judge of power cuts');

test('what differs and is marked is in order, and is counted', () => {
  assert.deepEqual(judged(), { differing: 1, marked: 1, chunks: CHUNKS });
});

test('a chunk that differs and is not marked is found', () => {
  const primary = node([1, 2, 0, 0], [1, 0, 1, 1], WHOLE | NodeFlag.crashedPrimary);
  assert.throws(() => judged({ primary }), /chunk 1 is not marked/);
});

test('a write that was promised and is not on the primary is found', () => {
  assert.throws(
    () => judged({ promises: 2, primary: node([1, 0, 0, 0], [1, 1, 1, 1], 33) }),
    /the primary has write 0 in sector 8; 2 promises include write 2/,
  );
});

test('a promise of protocol C that the linked secondary does not keep is found', () => {
  assert.throws(() => judged({ promises: 2 }), /the secondary has write 0 in sector 8/);
});

test('a secondary that is apart, or says that it is not whole, has promised nothing', () => {
  const apart = node([1, 2, 0, 0], [0, 1, 0, 0], WHOLE | NodeFlag.crashedPrimary);
  apart.metadata.slots[0]!.shared = 9n;
  judged({ promises: 2, primary: apart });
  judged({ promises: 2, secondary: node([1, 0, 0, 0], [0, 0, 0, 0], 0) });
});

test('a whole secondary with a later write and without an earlier promise is found, apart too', () => {
  const apart = node([3, 2, 0, 0], [1, 1, 0, 0], WHOLE | NodeFlag.crashedPrimary);
  apart.metadata.slots[0]!.shared = 9n;
  judged({ primary: apart, secondary: node([3, 0, 0, 0], [0, 0, 0, 0], WHOLE) });
  const torn = node([0, 0, 0, 0], [0, 0, 0, 0], WHOLE);
  // Sector 7 is of write 3, begun after write 1 was promised; sector 0 lacks write 1.
  torn.numbers[7] = 3;
  assert.throws(
    () => judged({ primary: apart, secondary: torn }),
    /the secondary has write 0 in sector 0/,
  );
});

test('an attach that warns of the activity log, or of anything when no write was torn, is found', () => {
  const warned = (warning: string): Recovered => ({
    ...node([1, 2, 0, 0], [0, 1, 0, 0], WHOLE | NodeFlag.crashedPrimary),
    report: { ...REPORT, warnings: [warning] },
  });
  const torn = warned('superblock copy 1 is unusable');
  judged({ bare: false, primary: torn });
  assert.throws(() => judged({ primary: torn }), /attach warns: superblock copy 1/);
  const log = warned('the activity log of node slot 0 is unusable');
  assert.throws(() => judged({ bare: false, primary: log }), /attach warns: the activity log/);
});

test('a primary that does not know that it crashed is found', () => {
  const primary = node([1, 2, 0, 0], [0, 1, 0, 0], WHOLE);
  assert.throws(() => judged({ primary }), /does not know that it crashed as primary/);
});

test('marks for everything, and marks after a clean stop, are found', () => {
  const everything = node([1, 2, 0, 0], [1, 1, 1, 1], WHOLE | NodeFlag.crashedPrimary);
  everything.metadata.slots[0]!.flags |= SlotFlag.allDirty;
  assert.throws(() => judged({ primary: everything }), /everything counts as dirty/);
  const clean = { ...REPORT, crashed: false, crashedPrimary: false };
  const stopped = (map: number[]): Partial<Moment> => ({
    phase: 'stopped',
    primary: { ...node([1, 2, 0, 0], map, WHOLE), report: clean },
    secondary: { ...node([1, 2, 0, 0], [0, 0, 0, 0], WHOLE), report: clean },
  });
  judged(stopped([0, 0, 0, 0]));
  assert.throws(() => judged(stopped([0, 0, 1, 0])), /after the clean stop 1 chunks are marked/);
});

test.run();
