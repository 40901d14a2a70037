// Records what two nodes write, so that the host can cut their power at any point of it: test/power replays the log.
import { strict as assert } from 'node:assert';
import { constants } from 'node:fs';
import { Chronicle, type ChronicleDevice } from '../../power/chronicle.ts';
import { FORMED, type RecordingJson, STOPPED, STOPPING } from '../../power/recording.ts';
import { Cluster } from '../../scenarios/cluster.js';
import type { ClusterNode } from '../../scenarios/node.js';
import { nbdPlace, type Place, ublkPlace } from '../../scenarios/place.js';
import { BlockDevice } from '../../tools/block-device.js';
import { NbdClient } from '../../tools/nbd-client.js';
import { Recorder, type RecorderOptions } from './support/recorder.js';
import { modprobe, type Scenario, type ScenarioContext, scenario } from './support.js';

const MIB = 1 << 20;

interface Course extends Pick<RecorderOptions, 'cut' | 'fua'> {
  protocol: 'A' | 'C';
  /** NBD has writes with FUA and nothing else; over ublk the kernel adds a flush to each that we can ask for. */
  frontend: 'ublk' | 'nbd';
  metadata: 'internal-end' | 'internal-start';
  diskMib: number;
  logExtents: number;
  /** Writes between two events. */
  writes: number;
  /** How often the link is cut and joined. */
  cuts: number;
  /** Points between the marks. */
  betweenMax: number;
  seed: number;
  long: boolean;
}

type OpenDevice = ChronicleDevice & { close(): Promise<void> };

async function openUblk(path: string, sizeBytes: number): Promise<OpenDevice> {
  const plain = await BlockDevice.open(path, sizeBytes);
  const durable = await BlockDevice.open(path, sizeBytes, constants.O_DSYNC);
  return {
    sizeBytes,
    write: (offset, data) => plain.write(offset, data),
    writeDurably: (offset, data) => durable.write(offset, data),
    flush: () => plain.flush(),
    close: async () => {
      await Promise.all([plain.close(), durable.close()]);
    },
  };
}

async function openNbd(socket: string, volume: string): Promise<OpenDevice> {
  const client = await NbdClient.connect(socket, volume);
  return {
    sizeBytes: client.sizeBytes,
    write: (offset, data) => client.write(offset, data),
    writeDurably: (offset, data) => client.write(offset, data, { fua: true }),
    flush: () => client.flush(),
    close: () => client.close(),
  };
}

async function openDevice(
  t: ScenarioContext,
  node: ClusterNode,
  frontend: Course['frontend'],
): Promise<OpenDevice> {
  const { device: path, size_bytes: size } = await node.status();
  assert.ok(path !== null, `${node.name} serves no device`);
  const device = frontend === 'nbd' ? await openNbd(path, node.volume) : await openUblk(path, size);
  // Not waited for: requests may be out that end only with the device.
  t.undo(`close the device of ${node.name}`, () => void device.close().catch(() => {}));
  return device;
}

function describe({ cut, protocol, logExtents, fua, frontend, metadata }: Course): string {
  const disk = fua ? 'disks with FUA' : 'disks without FUA';
  return `power cuts (${cut}), protocol ${protocol}, ${frontend}, ${logExtents} hot extents, ${disk}, ${metadata}`;
}

async function record(t: ScenarioContext, course: Course): Promise<void> {
  const { protocol, cut, fua, logExtents, seed } = course;
  await modprobe(t, 'ublk_drv');
  const recorder = await Recorder.create(t, {
    diskBytes: course.diskMib * MIB,
    logBytes: 640 * MIB,
    cut,
    fua,
  });
  const place: Place = {
    ...ublkPlace,
    ...(course.frontend === 'nbd' ? { frontend: nbdPlace.frontend } : {}),
    disks: async () => [...recorder.disks],
  };
  const cluster = await Cluster.form(t, place, {
    volume: { protocol, activityLogExtents: logExtents },
    metadata: course.metadata,
  });
  const { alpha, link } = cluster;
  await recorder.settle();
  await recorder.mark(FORMED);

  const device = await openDevice(t, alpha, course.frontend);
  const chronicle = new Chronicle(device, { seed, depth: 8, flushEvery: 16, fuaEvery: 6 });
  chronicle.start();
  await chronicle.more(course.writes);
  for (let round = 0; round < course.cuts; round += 1) {
    link.cut();
    await alpha.unlinked();
    await chronicle.more(course.writes);
    link.join();
    await alpha.until('in step again', (_, peer) => peer.connection === 'Connected');
    await chronicle.more(course.writes);
  }
  await chronicle.stop();
  await device.close();
  await cluster.synced();
  await recorder.mark(STOPPING);
  await cluster.down();
  await recorder.mark(STOPPED);
  const note: Omit<RecordingJson, keyof RecorderOptions> = {
    name: `recording ${seed}: ${describe(course)}`,
    protocol,
    logExtents,
    metadata: course.metadata,
    seed,
    betweenMax: course.betweenMax,
    reunions: course.long ? 6 : 2,
    tamper: !course.long,
    chronicle: chronicle.toJSON(),
  };
  await recorder.save(note);
}

const short: Course = {
  ...{ cut: 'primary', protocol: 'C', frontend: 'ublk', metadata: 'internal-end', fua: false },
  ...{ diskMib: 24, logExtents: 7, writes: 150, cuts: 1, betweenMax: 300, seed: 1, long: false },
};
const long: Course = { ...short, writes: 300, cuts: 2, betweenMax: 2_000, long: true };

const courses: Course[] = [
  short,
  { ...long, seed: 11 },
  { ...long, seed: 12, protocol: 'A', logExtents: 16 },
  { ...long, seed: 13, fua: true, frontend: 'nbd', metadata: 'internal-start' },
  { ...long, seed: 14, fua: true, frontend: 'nbd', protocol: 'A' },
  { ...long, seed: 15, cut: 'secondary' },
  { ...long, seed: 16, cut: 'secondary', protocol: 'A', frontend: 'nbd' },
  { ...long, seed: 17, cut: 'both', fua: true },
  { ...long, seed: 18, cut: 'both', protocol: 'A', diskMib: 96, logExtents: 67, writes: 600 },
];

const scenarios: Scenario[] = courses.map((course) =>
  scenario(
    `${course.long ? 'long: ' : ''}recording ${course.seed}: ${describe(course)}`,
    (t) => record(t, course),
    { timeoutMs: course.long ? 600_000 : 300_000, long: course.long },
  ),
);

export default scenarios;
