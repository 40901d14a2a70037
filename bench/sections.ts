/** Which works are done on which subjects. The subjects of a section all run at once, and take turns. */

import type { Subject } from './subject.ts';
import { DrbdPair } from './subjects/drbd.ts';
import { MdMirror } from './subjects/md_mirror.ts';
import { Nbdkit, QemuNbd } from './subjects/nbd_server.ts';
import { NodeSockets } from './subjects/node_sockets.ts';
import { QemuMirror } from './subjects/qemu_mirror.ts';
import { RamDisk } from './subjects/ram_disk.ts';
import { Tidemark } from './subjects/tidemark.ts';
import { UblkLoop } from './subjects/ublk_loop.ts';
import { DEVICE_WORKS, LOG_WORKS, RESYNC_WORKS, type Work } from './works.ts';

export interface Section {
  id: string;
  title: string;
  subjects: Subject[];
  works: readonly Work[];
}

const MIB = 1 << 20;
const DEVICE_BYTES = 256 * MIB;
const RESYNC_BYTES = { here: 1024 * MIB, vm: 200 * MIB };

/** The default number of extents, and ten times what it covers. */
const LOG_EXTENTS = 1237;
const LOG_EXTENT_BYTES = MIB;
const LOG_BYTES = 10 * LOG_EXTENTS * LOG_EXTENT_BYTES;
/** One block in each extent: all of them become hot. */
const TOUCH = ['--rw=write:1020k', '--bs=4k', '--iodepth=32'];

/** Under emulation a run takes its time: what lies between two others, and has no target there, is left out. */
const VM_WORKS = DEVICE_WORKS.filter(({ id }) => !/^write-4k-qd32$|-256k$/.test(id));

function devices(): Tidemark[] {
  const shape = { bytes: DEVICE_BYTES };
  return [
    new Tidemark({ ...shape, id: 'tidemark-c', title: 'Tidemark, protocol C', protocol: 'C' }),
    new Tidemark({ ...shape, id: 'tidemark-a', title: 'Tidemark, protocol A', protocol: 'A' }),
    new Tidemark({
      ...shape,
      id: 'tidemark-away',
      title: 'Tidemark, peer away',
      protocol: 'C',
      away: true,
    }),
  ];
}

function resync(bytes: number): Tidemark {
  return new Tidemark({
    id: 'tidemark-resync',
    title: 'Tidemark, protocol C',
    bytes,
    protocol: 'C',
  });
}

function log(): Section {
  const shape = { bytes: LOG_BYTES, protocol: 'C', fill: TOUCH } as const;
  const extentBytes = LOG_EXTENT_BYTES;
  const subjects = [
    new Tidemark({
      ...shape,
      id: 'tidemark-hot',
      title: 'Tidemark, every extent hot',
      // Nothing leaves the log while it is measured.
      volume: { extentBytes, activityLogExtents: 11 * LOG_EXTENTS, flushInterval: '1h' },
    }),
    new Tidemark({
      ...shape,
      id: 'tidemark-cold',
      title: 'Tidemark, ten times the log',
      volume: { extentBytes, activityLogExtents: LOG_EXTENTS },
    }),
  ];
  const title = 'Writes over ten times what the activity log covers';
  return { id: 'log', title, subjects, works: LOG_WORKS };
}

/** Each of Tidemark's subjects also as another checkout has it, in the same run; null: there is none. */
export function besideOf(sections: Section[], checkout: string | null): Section[] {
  if (checkout === null) return sections;
  const both = (subject: Subject) =>
    subject instanceof Tidemark ? [subject, subject.beside(checkout)] : [subject];
  return sections.map((section) => ({ ...section, subjects: section.subjects.flatMap(both) }));
}

/** On this machine, over NBD. */
export function sectionsHere(): Section[] {
  return [
    {
      id: 'devices',
      title: 'Devices',
      subjects: [
        new Nbdkit(DEVICE_BYTES),
        new QemuNbd(DEVICE_BYTES),
        new QemuMirror(DEVICE_BYTES),
        ...devices(),
      ],
      works: DEVICE_WORKS,
    },
    log(),
    {
      id: 'resync',
      title: 'Resync',
      subjects: [new NodeSockets(), resync(RESYNC_BYTES.here)],
      works: RESYNC_WORKS,
    },
  ];
}

/** In the virtual machine, over ublk. */
export function sectionsVm(): Section[] {
  return [
    {
      id: 'devices',
      title: 'Devices',
      subjects: [
        new RamDisk(DEVICE_BYTES),
        new UblkLoop(DEVICE_BYTES),
        new DrbdPair('drbd-c', 'C', DEVICE_BYTES),
        new DrbdPair('drbd-a', 'A', DEVICE_BYTES),
        new DrbdPair('drbd-away', 'away', DEVICE_BYTES),
        new MdMirror(DEVICE_BYTES),
        ...devices(),
      ],
      works: VM_WORKS,
    },
    log(),
    {
      id: 'resync',
      title: 'Resync',
      subjects: [new DrbdPair('drbd-resync', 'C', RESYNC_BYTES.vm), resync(RESYNC_BYTES.vm)],
      works: RESYNC_WORKS,
    },
  ];
}
