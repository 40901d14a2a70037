/** The works: what is done to every subject, and what is measured by it. */

import type { Series, Values } from './figures.ts';
import { measureFio } from './fio.ts';
import type { Window } from './profile.ts';
import { EVERYTHING, measureResync, measureResyncUnderLoad, SCATTERED } from './resync.ts';
import { canCarry, canResync, type Subject } from './subject.ts';

export interface Measurement {
  values: Values;
  series?: Series;
  /** When the work was in full swing; where it is told. */
  window?: Window;
}

export interface Work {
  /** In results and targets. */
  id: string;
  title: string;
  /** Whether it makes sense for the subject. */
  suits(subject: Subject): boolean;
  measure(subject: Subject, seconds: number): Promise<Measurement>;
}

/** So long, however short the other works are to be: one that is warm carries most. */
const CARRY_S_MIN = 1;

function fioWork(id: string, title: string, fio: string): Work {
  const words = fio.split(' ').map((word) => `--${word}`);
  return {
    id,
    title,
    suits: (subject) => subject.bytes > 0,
    measure: (subject, seconds) => measureFio(subject, words, seconds),
  };
}

const DEPTHS = [1, 16, 32, 64];
const SIZES = ['128k', '256k', '1m'];

/** What any device does. */
export const DEVICE_WORKS: readonly Work[] = [
  ...DEPTHS.map((depth) =>
    fioWork(
      `write-4k-qd${depth}`,
      `4 KiB random write, QD ${depth}`,
      `rw=randwrite bs=4k iodepth=${depth}`,
    ),
  ),
  fioWork(
    'write-4k-4jobs',
    '4 KiB random write, 4 jobs of QD 16',
    'rw=randwrite bs=4k iodepth=16 numjobs=4',
  ),
  fioWork('read-4k-qd32', '4 KiB random read, QD 32', 'rw=randread bs=4k iodepth=32'),
  fioWork(
    'mix-4k-qd32',
    '4 KiB random, 70 % reads, QD 32',
    'rw=randrw rwmixread=70 bs=4k iodepth=32',
  ),
  ...SIZES.map((size) =>
    fioWork(`write-${size}`, `${sizeText(size)} write, QD 8`, `rw=write bs=${size} iodepth=8`),
  ),
  ...SIZES.map((size) =>
    fioWork(`read-${size}`, `${sizeText(size)} read, QD 8`, `rw=read bs=${size} iodepth=8`),
  ),
  fioWork(
    'database-16k',
    '16 KiB random write, a flush after each',
    'rw=randwrite bs=16k iodepth=1 fsync=1',
  ),
];

/** Over more of the device than the activity log covers, or as much. */
export const LOG_WORKS: readonly Work[] = [
  fioWork('write-4k-qd32', '4 KiB random write, QD 32', 'rw=randwrite bs=4k iodepth=32'),
];

function resyncWork(id: string, title: string, dirt: readonly string[]): Work {
  return {
    id,
    title,
    suits: canResync,
    measure: (subject) => {
      if (!canResync(subject)) throw new TypeError(`${subject.id} has no resync`);
      return measureResync(subject, dirt);
    },
  };
}

export const RESYNC_WORKS: readonly Work[] = [
  {
    id: 'carry-64k',
    title: '64 KiB frames, 16 in flight',
    suits: canCarry,
    async measure(subject, seconds) {
      if (!canCarry(subject)) throw new TypeError(`${subject.id} carries nothing`);
      return { values: { bytes_per_s: await subject.carry(Math.max(CARRY_S_MIN, seconds)) } };
    },
  },
  resyncWork('resync-full', 'resync of everything', EVERYTHING),
  resyncWork('resync-scattered', 'resync of 4 KiB in every 64 KiB', SCATTERED),
  {
    id: 'resync-loaded',
    title: '4 KiB random write, QD 1, during a resync of everything',
    suits: canResync,
    measure: (subject) => {
      if (!canResync(subject)) throw new TypeError(`${subject.id} has no resync`);
      return measureResyncUnderLoad(subject);
    },
  },
];

function sizeText(size: string): string {
  return size.replace('k', ' KiB').replace('m', ' MiB');
}
