// Logs as broken versions of Tidemark would have left them, made from a good one: each must be caught, or the replay of the
// good one proves nothing.
import { type LogEntry, LogFlag } from './log_writes.ts';
import { findMetadata } from './metadata.ts';
import { Random } from './numbers.ts';
import { FORMED, type Recording } from './recording.ts';
import { disksAt, markIndex, PowerCutError, replay } from './replay.ts';

/** The kinds of entries that a tampering tells apart. */
interface Kinds {
  flush: boolean;
  /** Of the primary. */
  logBlock: boolean;
  mapBlock: boolean;
  data: boolean;
  /** Anything of the secondary. */
  secondary: boolean;
}

type KindsOf = (entry: LogEntry) => Kinds;

interface Tampering {
  name: string;
  /** What is left of the entries behind the mark 'formed'. */
  change: (entries: LogEntry[], kindsOf: KindsOf, random: Random) => LogEntry[];
}

function without(part: (kinds: Kinds) => boolean, oneIn = 1): Tampering['change'] {
  return (entries, kindsOf, random) =>
    entries.filter((entry) => !part(kindsOf(entry)) || random.below(oneIn) !== 0);
}

/** Lets `entries` other entries pass before those of a kind. */
function late(part: (kinds: Kinds) => boolean, places: number): Tampering['change'] {
  return (entries, kindsOf) => {
    const changed = [...entries];
    for (let at = changed.length - 1; at >= 0; at -= 1) {
      if (!part(kindsOf(changed[at]!))) continue;
      const [entry] = changed.splice(at, 1);
      changed.splice(at + places, 0, entry!);
    }
    return changed;
  };
}

export const TAMPERINGS: readonly Tampering[] = [
  { name: 'without flushes', change: without(({ flush }) => flush) },
  { name: 'without every second flush', change: without(({ flush }) => flush, 2) },
  { name: 'without map blocks', change: without(({ mapBlock }) => mapBlock) },
  { name: 'without one log block in 20', change: without(({ logBlock }) => logBlock, 20) },
  { name: 'with log blocks behind the data', change: late(({ logBlock }) => logBlock, 4) },
  { name: 'without one write of data in 50', change: without(({ data }) => data, 50) },
  {
    name: 'without one write of the secondary in 50',
    change: without(({ secondary }) => secondary, 50),
  },
];

function kindsOfIn(recording: Recording, entries: readonly LogEntry[]): KindsOf {
  const { diskBytes } = recording.note;
  const [primary] = disksAt(entries, markIndex(entries, FORMED), diskBytes);
  const { areaOffset, areaBytes, mapsOffset } = findMetadata(primary);
  return ({ offset, bytes, flags }) => {
    const ours = bytes > 0 && offset < diskBytes;
    const at = offset - areaOffset;
    const metadata = ours && at >= 0 && at < areaBytes;
    const last = areaBytes - 4096;
    return {
      flush: (flags & LogFlag.flush) !== 0,
      logBlock: metadata && at >= 4096 && at < mapsOffset,
      mapBlock: metadata && at >= mapsOffset && at < last,
      data: ours && !metadata,
      secondary: bytes > 0 && !ours,
    };
  };
}

/** Names the tamperings that the replay of a recording does not notice. */
export async function missedTamperings(recording: Recording): Promise<string[]> {
  const missed: string[] = [];
  for (const { name, change } of TAMPERINGS) {
    const tampered = (entries: LogEntry[]): LogEntry[] => {
      const from = markIndex(entries, FORMED) + 1;
      const kindsOf = kindsOfIn(recording, entries);
      const random = new Random(recording.note.seed);
      const changed = change(entries.slice(from), kindsOf, random);
      return [...entries.slice(0, from), ...changed].map((entry, index) => ({ ...entry, index }));
    };
    try {
      await replay(recording, { change: tampered });
      missed.push(name);
    } catch (error) {
      if (!(error instanceof PowerCutError)) throw error;
    }
  }
  return missed;
}
