// What must hold after a power cut; docs/reliability-power.md has it in words.
import type { AttachReport } from '../../lib/binding/native.ts';
import { Promises } from './chronicle.ts';
import type { Numbers } from './disk.ts';
import { type Metadata, NodeFlag, SlotFlag } from './metadata.ts';
import type { RecordingJson } from './recording.ts';

const SECTOR_BYTES = 512;

/** One node after the cut, and after its attach. */
export interface Recovered {
  metadata: Metadata;
  numbers: Numbers;
  /** Undefined for a node that had no cut. */
  report: AttachReport | undefined;
}

export interface Moment {
  /** Promises made by then, at least. */
  promises: number;
  /** Nothing of any cache is left. */
  bare: boolean;
  /** Before the clean stop began, in it, or behind its end. */
  phase: 'running' | 'stopping' | 'stopped';
  primary: Recovered;
  secondary: Recovered;
}

export interface Findings {
  /** Chunks that differ, and those that are marked. */
  differing: number;
  marked: number;
  chunks: number;
}

export class Judge {
  private readonly record: RecordingJson;
  private readonly onPrimary: Promises;
  private readonly onSecondary: Promises;
  /** How many promises had been made when a write was begun, by its number. */
  private readonly promisesAt: Uint32Array;

  constructor(record: RecordingJson, promisesAt: Uint32Array) {
    this.record = record;
    this.promisesAt = promisesAt;
    this.onPrimary = new Promises(record.chronicle);
    this.onSecondary = new Promises(record.chronicle);
  }

  /** Throws if the cut broke a promise. */
  check(moment: Moment): Findings {
    this.checkAttach('primary', moment.primary, moment);
    this.checkAttach('secondary', moment.secondary, moment);
    this.checkKept(moment);
    this.checkOrder(moment);
    return this.checkCovered(moment);
  }

  /** After the nodes have found each other again: one copy, with all that was promised, and not more copied than marked. */
  checkReunion(moment: Moment, copied: number, ours: Numbers, theirs: Numbers): void {
    const at = ours.findIndex((number, sector) => number !== theirs[sector]);
    if (at >= 0) {
      throw new Error(
        `after the reunion sector ${at} has write ${ours[at]} at the primary, ${theirs[at]} at the secondary`,
      );
    }
    this.onPrimary.set(moment.promises);
    this.assertFloor('the reunited primary', this.onPrimary.floor, ours, moment.promises);
    let marked = 0;
    for (const { metadata } of [moment.primary, moment.secondary]) {
      for (const mark of metadata.slots[0]!.map) marked += mark;
    }
    const most = marked * moment.primary.metadata.chunkBytes;
    if (copied > most) throw new Error(`the reunion copied ${copied} bytes; ${most} were marked`);
  }

  private checkAttach(who: string, { metadata, report }: Recovered, moment: Moment): void {
    if (metadata.slots.length !== 1) throw new Error(`${who}: ${metadata.slots.length} slots`);
    if (report === undefined) return;
    const { warnings } = report;
    const bad = warnings.find((text) => moment.bare || text.includes('activity log'));
    if (bad !== undefined) throw new Error(`${who}: attach warns: ${bad}`);
    if (moment.phase === 'stopping') return;
    if (report.crashed !== (moment.phase === 'running')) {
      throw new Error(`${who}: attach finds crashed: ${report.crashed} (${moment.phase})`);
    }
    if (who !== 'primary' || moment.phase === 'stopped') return;
    if (!report.crashedPrimary || (metadata.flags & NodeFlag.crashedPrimary) === 0) {
      throw new Error('the primary does not know that it crashed as primary');
    }
  }

  /** What the writer was told is durable is on the primary's disk. */
  private checkKept({ promises, primary }: Moment): void {
    this.onPrimary.set(promises);
    this.assertFloor('the primary', this.onPrimary.floor, primary.numbers, promises);
  }

  /** A secondary that calls itself whole has a moment of the data; under C, while linked, all that was promised. */
  private checkOrder({ promises, primary, secondary }: Moment): void {
    if ((secondary.metadata.flags & NodeFlag.consistent) === 0) return;
    const apart = primary.metadata.slots[0]!.shared !== 0n;
    // Where the log shows the secondary as it was a little earlier, what it had by now is not known.
    const lags = this.record.fua && this.record.cut === 'primary';
    const linked = this.record.protocol === 'C' && !apart && !lags;
    let known = linked ? promises : 0;
    for (const write of secondary.numbers) {
      if (write !== 0) known = Math.max(known, this.promisesAt[write]!);
    }
    this.onSecondary.set(known);
    this.assertFloor('the secondary', this.onSecondary.floor, secondary.numbers, known);
  }

  private assertFloor(who: string, floor: Uint32Array, numbers: Numbers, promises: number): void {
    for (let sector = 0; sector < floor.length; sector += 1) {
      if (numbers[sector]! >= floor[sector]!) continue;
      throw new Error(
        `${who} has write ${numbers[sector]} in sector ${sector}; ${promises} promises include write ${floor[sector]}`,
      );
    }
  }

  /** Where the copies differ, the primary's recovered map says so. */
  private checkCovered({ phase, primary, secondary }: Moment): Findings {
    const { chunkBytes } = primary.metadata;
    const { map, flags } = primary.metadata.slots[0]!;
    const sectors = chunkBytes / SECTOR_BYTES;
    const [ours, theirs] = [primary.numbers, secondary.numbers];
    const findings: Findings = { differing: 0, marked: 0, chunks: map.length };
    for (let chunk = 0; chunk < map.length; chunk += 1) {
      const begin = chunk * sectors;
      const end = Math.min(begin + sectors, ours.length);
      let sector = begin;
      while (sector < end && ours[sector] === theirs[sector]) sector += 1;
      findings.marked += map[chunk]!;
      if (sector === end) continue;
      findings.differing += 1;
      if (map[chunk] !== 0) continue;
      throw new Error(
        `chunk ${chunk} is not marked, and its sector ${sector} has write ${ours[sector]} at the primary, ${theirs[sector]} at the secondary`,
      );
    }
    if ((flags & SlotFlag.allDirty) !== 0) throw new Error('everything counts as dirty');
    if (phase === 'stopped' && (findings.marked > 0 || findings.differing > 0)) {
      throw new Error(
        `after the clean stop ${findings.marked} chunks are marked, ${findings.differing} differ`,
      );
    }
    return findings;
  }
}
