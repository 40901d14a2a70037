// What a recording consists of: the kernel's log of two nodes' disks, and a note of what was written and promised.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import type { ChronicleJson } from './chronicle.ts';

export type Cut = 'primary' | 'secondary' | 'both';

export interface RecordingJson {
  name: string;
  protocol: 'A' | 'C';
  logExtents: number;
  metadata: 'internal-end' | 'internal-start';
  /** Whose power is cut: this disk's flushes are in the log. The other's are not; what it wrote counts as durable. */
  cut: Cut;
  /** Whether the disks took writes with FUA: those overtake others in the log, so that a disk without a cache lags. */
  fua: boolean;
  /** Bytes of each disk: the primary's comes first in the log's device, the secondary's behind it. */
  diskBytes: number;
  /** At how many points between the marks it is replayed at most, chosen by `seed`. */
  betweenMax: number;
  /** At how many of them real daemons are started on what is left. */
  reunions: number;
  /** Whether the replay is also to be tried on logs of broken versions. */
  tamper: boolean;
  seed: number;
  chronicle: ChronicleJson;
}

/** Marks in the log. */
export const FORMED = 'formed';
export const STOPPING = 'stopping';
export const STOPPED = 'stopped';

const NOTE = 'recording.json';
export const LOG = 'recording.log.gz';

export interface Recording {
  directory: string;
  note: RecordingJson;
}

/** The recordings in a directory, each in a folder of its own. */
export function findRecordings(directory: string): Recording[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .sort()
    .map((name) => join(directory, name))
    .filter((folder) => existsSync(join(folder, NOTE)))
    .map((folder) => ({
      directory: folder,
      note: JSON.parse(readFileSync(join(folder, NOTE), 'utf8')) as RecordingJson,
    }));
}

export function notePath(directory: string): string {
  return join(directory, NOTE);
}

export function readLog({ directory }: Recording): Buffer {
  return gunzipSync(readFileSync(join(directory, LOG)));
}
