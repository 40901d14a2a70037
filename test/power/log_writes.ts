// The log of the kernel's dm-log-writes target, as its documentation and drivers/md/dm-log-writes.c define it.
//
// On the log device, in units of the recorded device's logical block ("sector" below), all numbers little-endian:
//
//   super   u64 magic, u64 version 1, u64 entries, u32 sector bytes
//   entry   u64 sector, u64 sectors, u64 flags, u64 data bytes: one sector, the text of a mark behind the numbers;
//           then the data: `sectors` sectors, none for a discard
//
// What the order means. A write enters the log when it is known to be durable: the target keeps writes that have
// completed, in the order in which they did, and puts them into the log, in front of a flush, when that flush
// completes; only those that had completed before the flush was sent. A write with FUA enters when it completes. So
// - a cut right behind entry i of the log leaves everything up to the last flush there, and every FUA before i;
// - the writes between that flush and i had completed, and were in the disk's cache: each sector of them may be there;
// - marks, and writes with FUA, overtake writes without it that completed before them, and are behind no flush.
// What was never flushed comes last, when the target is removed.
import { type BufferLike, u64 } from './numbers.ts';

export const LOG_MAGIC = 0x6a736677736872n;
const LOG_VERSION = 1;
const SUPER_BYTES = 28;
const ENTRY_BYTES = 32;

export const LogFlag = { flush: 1, fua: 2, discard: 4, mark: 8, metadata: 16 } as const;
const KNOWN_FLAGS = 31;

export interface LogEntry {
  index: number;
  /** Where the write went, and how much it was, in bytes. */
  offset: number;
  bytes: number;
  flags: number;
  /** What was written: a view into the log. Empty for flushes, discards and marks. */
  data: Buffer;
  /** The text of a mark. */
  mark: string;
}

/** A log that cannot be read as one. */
export class LogFormatError extends Error {}

interface Super {
  entries: number;
  sectorBytes: number;
}

function readSuper(head: BufferLike): Super {
  const magic = head.readBigUInt64LE(0);
  if (magic !== LOG_MAGIC) {
    throw new LogFormatError(`no log of dm-log-writes: magic 0x${magic.toString(16)}`);
  }
  const version = u64(head, 8);
  if (version !== LOG_VERSION) {
    throw new LogFormatError(`log version ${version}; expected ${LOG_VERSION}`);
  }
  const sectorBytes = head.readUInt32LE(24);
  if (sectorBytes !== 512 && sectorBytes !== 4096) {
    throw new LogFormatError(`log with sectors of ${sectorBytes} bytes; expected 512 or 4096`);
  }
  return { entries: u64(head, 16), sectorBytes };
}

interface Head {
  sector: number;
  sectors: number;
  flags: number;
  markBytes: number;
  /** Sectors of data that follow. */
  dataSectors: number;
}

function readHead(bytes: BufferLike, at: number, index: number, sectorBytes: number): Head {
  const flags = u64(bytes, at + 16);
  if ((flags & ~KNOWN_FLAGS) !== 0 || flags > KNOWN_FLAGS) {
    throw new LogFormatError(`entry ${index}: flags 0x${flags.toString(16)}; expected 0..0x1f`);
  }
  const sectors = u64(bytes, at + 8);
  const dataBytes = u64(bytes, at + 24);
  const isMark = (flags & LogFlag.mark) !== 0;
  if (isMark ? dataBytes > sectorBytes - ENTRY_BYTES : dataBytes !== 0) {
    throw new LogFormatError(`entry ${index}: ${dataBytes} bytes of private data`);
  }
  if (isMark && sectors !== 0) throw new LogFormatError(`entry ${index}: a mark of a write`);
  return {
    sector: u64(bytes, at),
    sectors,
    flags,
    markBytes: isMark ? dataBytes : 0,
    dataSectors: (flags & LogFlag.discard) !== 0 ? 0 : sectors,
  };
}

/** Reads a whole log. */
export function parseLog(log: Buffer): LogEntry[] {
  if (log.length < SUPER_BYTES) throw new LogFormatError(`a log of ${log.length} bytes`);
  const { entries, sectorBytes } = readSuper(log);
  const found: LogEntry[] = [];
  let at = sectorBytes;
  for (let index = 0; index < entries; index += 1) {
    if (at + sectorBytes > log.length) {
      throw new LogFormatError(`the log ends before entry ${index} of ${entries}`);
    }
    const { sector, sectors, flags, markBytes, dataSectors } = readHead(
      log,
      at,
      index,
      sectorBytes,
    );
    const begin = at + sectorBytes;
    const end = begin + dataSectors * sectorBytes;
    if (end > log.length) throw new LogFormatError(`the log ends in the data of entry ${index}`);
    found.push({
      index,
      offset: sector * sectorBytes,
      bytes: sectors * sectorBytes,
      flags,
      data: log.subarray(begin, end),
      mark: log.toString('utf8', at + ENTRY_BYTES, at + ENTRY_BYTES + markBytes),
    });
    at = end;
  }
  return found;
}

/** Bytes of a log that lies on a device, found by going from entry to entry. */
export function measureLog(read: (offset: number, bytes: number) => Buffer): number {
  const { entries, sectorBytes } = readSuper(read(0, 512));
  let at = sectorBytes;
  for (let index = 0; index < entries; index += 1) {
    const { dataSectors } = readHead(read(at, 512), 0, index, sectorBytes);
    at += sectorBytes * (1 + dataSectors);
  }
  return at;
}
