// Replays a recorded log of two disks up to many points, cuts the power there, attaches what is left with the real
// add-on, and has it judged.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadAddon } from '../../lib/binding/addon.ts';
import type { AttachReport } from '../../lib/binding/native.ts';
import { readSector, SECTOR_BYTES } from './chronicle.ts';
import { ReplayDisk } from './disk.ts';
import { type Findings, Judge, type Moment } from './judge.ts';
import { type LogEntry, LogFlag, parseLog } from './log_writes.ts';
import { Random } from './numbers.ts';
import { choosePoints, isMark, type Point, pointText } from './points.ts';
import { FORMED, type Recording, readLog, STOPPED, STOPPING } from './recording.ts';
import { reunite } from './reunion.ts';

export interface ReplayResult {
  points: number;
  /** Flushes and writes with FUA in the log, and those of them right behind which the power was cut. */
  marks: number;
  marksReplayed: number;
  /** Points at which the copies differed, and at which the daemons were started. */
  differed: number;
  reunited: number;
  flushes: number;
  fua: number;
  /** Marked chunks of all, on average. */
  markedShare: number;
}

/** A promise was broken at a point. */
export class PowerCutError extends Error {
  readonly point: Point;

  constructor(point: Point, cause: unknown) {
    const why = cause instanceof Error ? cause.message : String(cause);
    super(`power cut at ${pointText(point)} (entry:seed): ${why}`, { cause });
    this.point = point;
  }
}

const NO_CALLBACKS = { events() {}, outgoing() {}, room() {} };
/** Every so many points the data is read again after the attach. */
const RECHECK_EVERY = 16;

class Replay {
  private readonly recording: Recording;
  private readonly entries: LogEntry[];
  private readonly first: number;
  private readonly stopping: number;
  private readonly stopped: number;
  private readonly primary: ReplayDisk;
  private readonly secondary: ReplayDisk;
  private readonly judge: Judge;
  private readonly promisesAt: Uint32Array;
  private next: number;
  private promises = 0;
  private done = 0;

  constructor(recording: Recording, entries: LogEntry[], directory: string) {
    this.recording = recording;
    const { note } = recording;
    this.entries = entries;
    this.first = markIndex(entries, FORMED);
    this.stopping = markIndex(entries, STOPPING);
    this.stopped = markIndex(entries, STOPPED);
    this.promisesAt = new Uint32Array(note.chronicle.writes.length + 1);
    const [one, other] = disksAt(entries, this.first, note.diskBytes);
    this.primary = new ReplayDisk('primary', 0, one, join(directory, 'primary'));
    this.secondary = new ReplayDisk(
      'secondary',
      note.diskBytes,
      other,
      join(directory, 'secondary'),
    );
    this.judge = new Judge(note, this.promisesAt);
    this.next = this.first + 1;
  }

  get disks(): ReplayDisk[] {
    return [this.primary, this.secondary];
  }

  points(): Point[] {
    const { betweenMax, seed } = this.recording.note;
    return choosePoints(this.entries, this.first + 1, betweenMax, seed);
  }

  /** Numbers of the entries that are marks. */
  marks(): Set<number> {
    const behind = this.entries.slice(this.first + 1).filter(isMark);
    return new Set(behind.map(({ index }) => index));
  }

  count(flag: number): number {
    return this.entries.filter(({ index, flags }) => index > this.first && (flags & flag) !== 0)
      .length;
  }

  async at(point: Point, reunion: boolean): Promise<Findings> {
    if (point.after < this.next - 1 || point.after >= this.entries.length) {
      throw new RangeError(`point ${pointText(point)} of ${this.entries.length} entries`);
    }
    try {
      while (this.next <= point.after) this.take(this.entries[this.next++]!);
      return await this.cut(point, reunion);
    } catch (error) {
      throw new PowerCutError(point, error);
    }
  }

  private async cut(point: Point, reunion: boolean): Promise<Findings> {
    const random = point.seed === 0 ? null : new Random(point.seed);
    const reports: Array<AttachReport | undefined> = [];
    try {
      for (const disk of this.disks) {
        const cached = this.isCut(disk);
        if (cached) disk.cut(random);
        // The map of a node that lives is in its memory; the disk has at least as much.
        const attach = cached || disk === this.primary;
        const report = attach ? await attachOnce(disk) : undefined;
        reports.push(cached ? report : undefined);
        if (attach && this.done % RECHECK_EVERY === 0) disk.assertDataUntouched();
      }
      this.done += 1;
      const [one, other] = this.disks.map((disk, index) => ({
        metadata: disk.imageMetadata(),
        numbers: disk.numbers,
        report: reports[index],
      }));
      const moment: Moment = {
        promises: this.promises,
        bare: random === null,
        phase: this.phase(point),
        primary: one!,
        secondary: other!,
      };
      const findings = this.judge.check(moment);
      if (reunion) await this.reunite(moment);
      return findings;
    } finally {
      for (const disk of this.disks) {
        if (reunion) disk.restoreAll();
        else disk.restore();
      }
    }
  }

  /** The daemons find their disks as they are after one attach, and a crash right behind it. */
  private async reunite(moment: Moment): Promise<void> {
    const { note } = this.recording;
    const images = [this.primary.imagePath, this.secondary.imagePath] as const;
    const { copied } = await reunite(note, images);
    const [ours, theirs] = this.disks.map((disk) => disk.imageNumbers());
    this.judge.checkReunion(moment, copied, ours!, theirs!);
  }

  private phase({ after }: Point): Moment['phase'] {
    if (after < this.stopping) return 'running';
    return after < this.stopped ? 'stopping' : 'stopped';
  }

  private isCut(disk: ReplayDisk): boolean {
    const { cut } = this.recording.note;
    return cut === 'both' || (cut === 'primary') === (disk === this.primary);
  }

  private take(entry: LogEntry): void {
    if ((entry.flags & LogFlag.mark) !== 0) return;
    const disk = entry.offset < this.recording.note.diskBytes ? this.primary : this.secondary;
    if ((entry.flags & LogFlag.flush) !== 0) {
      for (const each of this.disks) if (this.isCut(each)) each.flush();
    }
    if (entry.bytes === 0) return;
    this.learn(entry);
    if (!this.isCut(disk)) disk.keep(entry);
    else if ((entry.flags & LogFlag.fua) !== 0) disk.force(entry);
    else disk.cache(entry);
  }

  /** Whoever begins a write knows what was promised by then; so do we when we see its data. */
  private learn(entry: LogEntry): void {
    for (let at = 0; at + SECTOR_BYTES <= entry.data.length; at += SECTOR_BYTES) {
      const sector = entry.data.readUInt32LE(at + 4);
      if (!isChronicle(entry.data, at)) continue;
      const { write, promises } = readSector(entry.data, at, sector);
      this.promisesAt[write] = promises;
      this.promises = Math.max(this.promises, promises);
    }
  }
}

/** Where a mark is in the log. */
export function markIndex(entries: readonly LogEntry[], text: string): number {
  const found = entries.find(({ mark }) => mark === text);
  if (found === undefined) throw new Error(`the log has no mark '${text}'`);
  return found.index;
}

/** Both disks as they are at an entry, with all that came before it. */
export function disksAt(
  entries: readonly LogEntry[],
  index: number,
  diskBytes: number,
): [Buffer, Buffer] {
  const whole = Buffer.alloc(2 * diskBytes);
  for (const entry of entries.slice(0, index)) {
    if (entry.data.length > 0) entry.data.copy(whole, entry.offset);
    else whole.fill(0, entry.offset, entry.offset + entry.bytes);
  }
  return [whole.subarray(0, diskBytes), whole.subarray(diskBytes)];
}

function isChronicle(data: Buffer, at: number): boolean {
  return data.toString('latin1', at, at + 4) === 'TWCP';
}

/** Attaches an image, as the daemon would, and lets go of it as if killed. */
async function attachOnce({ imagePath, placement }: ReplayDisk): Promise<AttachReport> {
  const options = { name: 'replay', backing: imagePath, placement };
  const volume = loadAddon().open(options, NO_CALLBACKS);
  const report = volume.attach;
  await volume.close(true);
  return report;
}

export interface ReplayOptions {
  /** Only this point. */
  only?: Point;
  /** Changes the log before it is replayed. */
  change?: (entries: LogEntry[]) => LogEntry[];
}

/** Cuts the power at the points of a recording; throws at the first broken promise. */
export async function replay(
  recording: Recording,
  options: ReplayOptions = {},
): Promise<ReplayResult> {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-power-'));
  let run: Replay | undefined;
  try {
    const entries = parseLog(readLog(recording));
    run = new Replay(recording, options.change?.(entries) ?? entries, directory);
    const points = options.only === undefined ? run.points() : [options.only];
    let differed = 0;
    let marked = 0;
    let reunited = 0;
    const marks = run.marks();
    const replayed = new Set<number>();
    const reunions = options.change === undefined ? recording.note.reunions : 0;
    const each = Math.ceil(points.length / (reunions + 1));
    for (const [index, point] of points.entries()) {
      const reunion = reunions > 0 && (index % each === each - 1 || options.only !== undefined);
      if (reunion) reunited += 1;
      const findings = await run.at(point, reunion);
      if (point.seed === 0 && marks.has(point.after)) replayed.add(point.after);
      if (findings.differing > 0) differed += 1;
      marked += findings.marked / findings.chunks;
    }
    return {
      points: points.length,
      marks: marks.size,
      marksReplayed: replayed.size,
      differed,
      reunited,
      flushes: run.count(LogFlag.flush),
      fua: run.count(LogFlag.fua),
      markedShare: marked / points.length,
    };
  } finally {
    for (const disk of run?.disks ?? []) disk.close();
    rmSync(directory, { recursive: true, force: true });
  }
}
