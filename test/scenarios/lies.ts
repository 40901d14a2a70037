// What a peer that lies may say, and what the node that it says it to must answer: every one costs it its link.
import { randomBytes } from 'node:crypto';
import { encodeFrame, writtenRanges } from '../tools/frames.ts';
import type { Liar } from '../tools/liar.ts';

const MIB = 1 << 20;
const RESYNC = 2;
/** The core's bounds (csrc/core/volume_impl.h): all of them the transfer log's. */
const ENTRIES_MAX = 8192;

/** What is told, and what its end says of it. */
export type Lie = [what: string, tell: (liar: Liar) => void, says: RegExp];

export const payload = (bytes: number) => Buffer.alloc(bytes, 0x5a);

/** A frame that will be right, and takes days. */
function drip(liar: Liar): void {
  const { incarnation } = liar.params!;
  const bytes = encodeFrame('control', { incarnation, payload: payload(MIB) });
  let said = 0;
  const timer = setInterval(() => liar.socket.write(bytes.subarray(said, ++said)), 50);
  void liar.closed.then(() => clearInterval(timer));
}

/** Told to a primary that copies its data to the liar. */
export const TO_A_SOURCE: readonly Lie[] = [
  [
    'an epoch that was never closed is durable',
    (liar) => liar.say('epochDone', { epoch: 4711 }),
    /epoch-done frame.*was not closed here/,
  ],
  [
    'a write that was never sent is written',
    (liar) => liar.say('written', { payload: writtenRanges([1_000_000_000, 1, 0]) }),
    /acknowledges write 1000000000|more writes than were sent/,
  ],
  [
    'four milliards of writes are written',
    (liar) => liar.say('written', { payload: writtenRanges([1, 0xffff_ffff, 0]) }),
    /acknowledges more writes than were sent/,
  ],
  [
    'a generation that was never offered is taken over',
    (liar) => liar.say('syncDoneAck', { offset: 4711 }),
    /sync-done-ack frame.*was not offered/,
  ],
  [
    'a write to a primary',
    (liar) => {
      liar.say('data', { sequence: 1, epoch: 1, length: 4096, payload: payload(4096) });
    },
    /data frame.*this node is primary/,
  ],
  [
    'a write far past the end',
    (liar) => liar.say('zeroes', { sequence: 1, epoch: 1, offset: 1n << 60n, length: 4096 }),
    /zeroes frame.*past the volume's end/,
  ],
  [
    'a write that wraps around',
    (liar) =>
      liar.say('zeroes', {
        sequence: 1,
        epoch: 1,
        offset: -512n & ((1n << 64n) - 1n),
        length: 4096,
      }),
    /length that cannot be right/,
  ],
  [
    'a payload of 4 GiB',
    (liar) => liar.say('control', { payloadBytes: 0xffff_ffff }),
    /length that cannot be right/,
  ],
  [
    'a frame of another link',
    (liar) => liar.say('ping', { incarnation: (liar.params!.incarnation ^ 1) >>> 0 }),
    /belongs to another link/,
  ],
  ['a header that rots', (liar) => liar.say('ping', { spoilHeader: 1 }), /header does not match/],
  [
    'a payload that rots',
    (liar) => liar.say('control', { payload: Buffer.from('{}'), spoilPayload: 1 }),
    /payload does not match/,
  ],
  [
    'a map nobody asked for',
    (liar) => liar.say('map', { flags: 4, payload: payload(1) }),
    /map frame/,
  ],
  ['both are primary', (liar) => liar.say('role', { offset: 1 }), /both nodes would be primary/],
  ['a role that is none', (liar) => liar.say('role', { offset: 2 }), /no such role/],
  [
    'a disk of no kind',
    (liar) => liar.say('disk', { offset: 7 }),
    /disk frame.*no such state of a disk/,
  ],
  [
    'a primary is to be the only copy',
    (liar) => liar.say('detach', { offset: 4711 }),
    /detach frame.*cannot be the only copy/,
  ],
  [
    'an answer to no detach',
    (liar) => liar.say('detachAck', { offset: 4711 }),
    /detach-ack frame.*nobody asked for it/,
  ],
  [
    'a read by one that has a disk',
    (liar) => liar.say('read', { sequence: 1, length: 4096 }),
    /read frame.*belongs to no primary without a disk/,
  ],
  [
    'data that nobody asked for',
    (liar) => liar.say('readReply', { sequence: 1, length: 4096, payload: payload(4096) }),
    /read-reply frame.*nobody asked for it/,
  ],
  [
    'more data than a read is long',
    (liar) => liar.say('readReply', { sequence: 1, length: 512, payload: payload(4096) }),
    /length that cannot be right/,
  ],
  [
    'the end of a resync from its target',
    (liar) => liar.say('syncDone', { offset: 4711 }),
    /sync-done frame/,
  ],
  ['a primary is outdated', (liar) => liar.say('outdate'), /primary cannot be outdated/],
  ['an answer to no question', (liar) => liar.say('outdateAck'), /nobody asked for it/],
  [
    'a barrier after nothing',
    (liar) => liar.say('barrier', { epoch: 1, offset: 7 }),
    /barrier frame/,
  ],
  [
    'a handshake in the middle',
    (liar) => liar.say('handshake', { payload: Buffer.from('{}') }),
    /handshake frame/,
  ],
  ['a frame byte by byte', drip, /frame does not end/],
  ['what is no frame', (liar) => liar.socket.write(randomBytes(4096)), /no frame/],
];

/** Told to a target by its source. */
export const TO_A_TARGET: readonly Lie[] = [
  [
    'the resync has ended, and nothing was sent',
    (liar) => liar.say('syncDone', { offset: BigInt(`0x${liar.params!.syncGeneration}`) }),
    /sync-done frame.*did not come, or are not durable/,
  ],
  [
    'the resync has ended, and nothing is durable',
    (liar) => {
      liar.say('zeroes', { sequence: 1, epoch: 1, length: MIB, flags: RESYNC });
      liar.say('syncDone', { sequence: 1, offset: BigInt(`0x${liar.params!.syncGeneration}`) });
    },
    /sync-done frame.*did not come, or are not durable/,
  ],
  [
    'a piece past the end',
    (liar) =>
      liar.say('zeroes', { sequence: 1, epoch: 1, offset: 1n << 40n, length: MIB, flags: RESYNC }),
    /past the volume's end/,
  ],
  [
    'a sequence with a gap',
    (liar) => liar.say('zeroes', { sequence: 2, epoch: 1, length: 4096, flags: RESYNC }),
    /expected sequence 1/,
  ],
  [
    'an epoch of the future',
    (liar) => liar.say('zeroes', { sequence: 1, epoch: 9, length: 4096, flags: RESYNC }),
    /expected epoch 1/,
  ],
  [
    'an epoch without an end',
    (liar) => {
      for (let sequence = 1; sequence <= ENTRIES_MAX + 1; sequence += 1) {
        liar.say('zeroes', { sequence, epoch: 1, length: 512, flags: RESYNC });
      }
    },
    /more than a peer may have/,
  ],
  [
    'pieces that never make a chunk',
    (liar) => {
      for (let sequence = 1; sequence <= ENTRIES_MAX + 256; sequence += 1) {
        const epoch = Math.ceil(sequence / 128);
        liar.say('zeroes', {
          sequence,
          epoch,
          offset: sequence * 4096,
          length: 512,
          flags: RESYNC,
        });
        if (sequence % 128 === 0) liar.say('barrier', { epoch, sequence, offset: 128 });
      }
    },
    /pieces that make no whole chunks/,
  ],
];

/** Fields of its state, told in a handshake, and why it is refused. */
export type HandshakeLie = [what: string, fields: Record<string, unknown>, says: RegExp];

/** The node that it lies to decides by what it was told (generations.ts), the liar by what is true. */
const SIZES_DIFFER = /refused \(rule 2, none\)/;
const CHUNKS_DIFFER = /refused \(rule 3, none\)/;

export const IN_A_HANDSHAKE: readonly HandshakeLie[] = [
  ['a volume of no bytes', { volumeBytes: 0 }, SIZES_DIFFER],
  ['a volume of 8 PiB', { volumeBytes: Number.MAX_SAFE_INTEGER }, SIZES_DIFFER],
  ['a volume of less than nothing', { volumeBytes: -4096 }, /field 'volumeBytes'/],
  ['more bytes than can be counted', { volumeBytes: 2 ** 60 }, /field 'volumeBytes'/],
  ['a size that is no number', { volumeBytes: '41771008' }, /field 'volumeBytes'/],
  ['chunks of no bytes', { chunkBytes: 0 }, CHUNKS_DIFFER],
  ['chunks of 8 PiB', { chunkBytes: Number.MAX_SAFE_INTEGER }, CHUNKS_DIFFER],
  ['chunks of half a byte', { chunkBytes: 0.5 }, /field 'chunkBytes'/],
  ['more marks than can be counted', { dirtyChunks: 2 ** 60 }, /field 'dirtyChunks'/],
  ['fewer marks than none', { dirtyChunks: -1 }, /field 'dirtyChunks'/],
];
