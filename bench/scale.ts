/**
 * `npm run bench:scale [-- --size TiB --marks N --hot N --grow --json FILE --docs --check]`: a sparse volume of 16 TiB created, attached,
 * crashed and attached again; two daemons over such volumes, killed and linked with few marks.
 *
 * The metadata lie on a real filesystem, as a full resync leaves them: every block of the peer's map was written, so that an attach has
 * all of them to read. With `--grow` attaches after a crash at sizes up to 1 PiB (in chunks of 64 KiB) follow; that needs 35 GiB of disk.
 *
 * `--docs` writes the table into docs/performance.md. `--check` compares with the targets and ends with 'N passed, N failed'.
 */

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Checks } from './checks.ts';
import type { Grid } from './report.ts';
import { watchBusy } from './run.ts';
import { type Attach, attach } from './scale_attach.ts';
import { NODES, type NodeName, ScalePair } from './scale_pair.ts';
import { type Copy, MIB, prepare, ScalePlace } from './scale_place.ts';
import { showSheet, writeSheet } from './sheet.ts';

const TIB = 2 ** 40;
const CHUNK_BYTES = 4096;
const BLOCK_BYTES = 4096;
/** What daemons are compared with: everything that a process needs whatever its volume's size. */
const SMALL_BYTES = 64 * MIB;
const GROWTH: Array<[tib: number, chunkBytes: number]> = [
  [1, CHUNK_BYTES],
  [4, CHUNK_BYTES],
  [16, CHUNK_BYTES],
  [64, CHUNK_BYTES],
  [1024, 64 * 1024],
];

const ATTACH_SECONDS_MAX = 2;
const BEYOND_MAP_MIB_MAX = 64;

interface Step {
  volume: string;
  step: string;
  seconds: number | null;
  cpu_seconds: number | null;
  /** Resident memory at its peak, beyond what the process or a small volume's daemon has. */
  grown_mib: number | null;
  note: string;
}

const steps: Step[] = [];

function tell(volume: string, step: string, result: Partial<Step>): void {
  steps.push({
    volume,
    step,
    seconds: null,
    cpu_seconds: null,
    grown_mib: null,
    note: '',
    ...result,
  });
  console.error(`${volume}: ${step}`);
}

function tellAttach(volume: string, step: string, one: Attach): void {
  const { replayedExtents, crashed } = one.report;
  tell(volume, step, {
    seconds: one.seconds,
    cpu_seconds: one.cpu_seconds,
    grown_mib: one.grown_bytes / MIB,
    note: `${crashed ? `${replayedExtents} extents from the log; ` : ''}${one.dirty_chunks} chunks dirty`,
  });
}

/** Evenly over the volume, block by block. */
function spread(bytes: number, count: number): number[] {
  const distance = Math.floor(bytes / count / BLOCK_BYTES) * BLOCK_BYTES;
  return Array.from({ length: count }, (_, index) => index * distance);
}

const label = (bytes: number, chunkBytes: number): string =>
  `${bytes >= TIB ? `${bytes / TIB} TiB` : `${bytes / MIB} MiB`}, ${chunkBytes / 1024} KiB`;

type Copies = Record<NodeName, Copy>;

/** Both copies, as after a full resync. */
async function inStep(place: ScalePlace, bytes: number, chunkBytes: number): Promise<Copies> {
  const name = label(bytes, chunkBytes);
  const made: Copy[] = [];
  for (const node of NODES) {
    const [copy, seconds] = await place.create(`${node}-${bytes}-${chunkBytes}`, bytes, chunkBytes);
    made.push(copy);
    if (node === 'alpha') tell(name, 'create', { seconds });
  }
  const [alpha, beta] = made as [Copy, Copy];
  prepare('in-step', alpha.metadata, 'alpha', beta.metadata, 'beta');
  return { alpha, beta };
}

async function oneNode(
  place: ScalePlace,
  copies: Copies,
  bytes: number,
  chunkBytes: number,
  hot: number,
) {
  const name = label(bytes, chunkBytes);
  tellAttach(name, 'attach', await attach(place, copies.alpha));
  await attach(place, copies.alpha, spread(bytes, hot));
  tellAttach(name, 'attach after a crash', await attach(place, copies.alpha));
}

/** A daemon of a small volume, for what it needs itself. */
async function smallDaemon(place: ScalePlace): Promise<[seconds: number, peakBytes: number]> {
  const copies = await inStep(place, SMALL_BYTES, CHUNK_BYTES);
  const pair = await ScalePair.make(place, copies);
  try {
    const seconds = await pair.up('alpha', '--primary');
    tell(label(SMALL_BYTES, CHUNK_BYTES), 'daemon up', { seconds, grown_mib: 0 });
    return [seconds, pair.peakBytes('alpha')];
  } finally {
    await pair.close();
  }
}

/** From the order to connect until nothing is left to resync. */
async function connect(pair: ScalePair, name: string, step: string): Promise<void> {
  const bytes = pair.wireBytes;
  const { resync_wire_bytes } = (await pair.status('alpha')).link;
  const begin = performance.now();
  await pair.call('alpha', 'connect', { peer: 'beta' });
  const volume = await pair.inStep();
  const seconds = (performance.now() - begin) / 1000;
  const all = pair.wireBytes - bytes;
  const data = volume.link.resync_wire_bytes - resync_wire_bytes;
  tell(name, step, {
    seconds,
    note: `${all} bytes on the wire, ${data} of them the resync's content`,
  });
}

async function apart(pair: ScalePair): Promise<void> {
  await pair.call('alpha', 'disconnect', { peer: 'beta' });
  await pair.see('alpha', 'apart', (_, peer) => peer.connection === 'StandAlone');
}

async function twoDaemons(
  place: ScalePlace,
  copies: Copies,
  bytes: number,
  hot: number,
  marks: number,
) {
  const name = label(bytes, CHUNK_BYTES);
  const [, small] = await smallDaemon(place);
  const grown = (pair: ScalePair) => (pair.peakBytes('alpha') - small) / MIB;
  const pair = await ScalePair.make(place, copies);
  try {
    const seconds = await pair.up('alpha', '--primary');
    tell(name, 'daemon up', { seconds, grown_mib: grown(pair) });
    await pair.up('beta');
    await pair.inStep();
    await apart(pair);
    await pair.write('alpha', [0]);
    await connect(pair, name, 'linked again with 1 mark');
    await apart(pair);
    await pair.write('alpha', spread(bytes, marks));
    await connect(pair, name, `linked again with ${marks} marks`);
    await pair.write('alpha', spread(bytes, hot));
    await apart(pair);
    await pair.end('alpha', 'SIGKILL');
    const again = await pair.up('alpha');
    const { replay_marked_chunks } = await pair.status('alpha');
    tell(name, 'daemon up after kill -9', {
      seconds: again,
      grown_mib: grown(pair),
      note: `${replay_marked_chunks} chunks from the log`,
    });
  } finally {
    await pair.close();
  }
}

function gridOf(): Grid {
  const number = (value: number | null, digits: number) => value?.toFixed(digits) ?? '';
  return {
    title: 'Large sparse volumes',
    head: ['volume, chunk', 'step', 's', 'CPU s', 'MiB grown', ''],
    rows: steps.map(({ volume, step, seconds, cpu_seconds, grown_mib, note }) => [
      volume,
      step,
      number(seconds, 3),
      number(cpu_seconds, 3),
      number(grown_mib, 1),
      note,
    ]),
  };
}

function check(name: string, mapMib: number): boolean {
  const checks = new Checks();
  const of = (step: string) => steps.find((one) => one.volume === name && one.step === step);
  const crashed = of('attach after a crash');
  checks.atMost(
    `${name}: attach after a crash, s`,
    crashed?.seconds ?? undefined,
    ATTACH_SECONDS_MAX,
  );
  // All of it counts, the touched part of the map too.
  checks.atMost(
    `${name}: attach after a crash, MiB grown`,
    crashed?.grown_mib ?? undefined,
    BEYOND_MAP_MIB_MAX,
  );
  const marked = of('attach, every map block marked');
  checks.atMost(
    `${name}: attach with every map block marked, MiB beyond the map`,
    marked?.grown_mib == null ? undefined : marked.grown_mib - mapMib,
    BEYOND_MAP_MIB_MAX,
  );
  const up = of('daemon up after kill -9');
  checks.atMost(
    `${name}: daemon after kill -9, MiB beyond a small volume's`,
    up?.grown_mib ?? undefined,
    BEYOND_MAP_MIB_MAX,
  );
  return checks.tell();
}

function whole(values: Record<string, string | boolean | undefined>, name: string, max: number) {
  const value = Number(values[name]);
  if (!Number.isInteger(value) || value < 1 || value > max) {
    throw new Error(`--${name}: ${values[name]} is not an integer from 1 to ${max}`);
  }
  return value;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      size: { type: 'string', default: '16' },
      marks: { type: 'string', default: '10' },
      hot: { type: 'string', default: '1000' },
      grow: { type: 'boolean', default: false },
      json: { type: 'string' },
      check: { type: 'boolean', default: false },
      docs: { type: 'boolean', default: false },
    },
  });
  const bytes = whole(values, 'size', 64) * TIB;
  const marks = whole(values, 'marks', 1000);
  const hot = whole(values, 'hot', 1237);
  const name = label(bytes, CHUNK_BYTES);
  const busy = await watchBusy();
  const place = new ScalePlace();
  try {
    const copies = await inStep(place, bytes, CHUNK_BYTES);
    await oneNode(place, copies, bytes, CHUNK_BYTES, hot);
    for (const copy of Object.values(copies)) place.removeCopy(copy);
    const pair = await inStep(place, bytes, CHUNK_BYTES);
    await twoDaemons(place, pair, bytes, hot, marks);
    prepare('mark', pair.beta.metadata);
    tellAttach(name, 'attach, every map block marked', await attach(place, pair.beta));
    for (const copy of Object.values(pair)) place.removeCopy(copy);
    for (const [tib, chunkBytes] of values.grow ? GROWTH : []) {
      const grown = await inStep(place, tib * TIB, chunkBytes);
      await oneNode(place, grown, tib * TIB, chunkBytes, hot);
      for (const copy of Object.values(grown)) place.removeCopy(copy);
    }
  } finally {
    await place.remove();
  }
  const grid = gridOf();
  showSheet(grid);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(steps, null, 2)}\n`);
  if (values.docs) {
    if (!values.grow) throw new Error('--docs: the growth to 1 PiB is missing, give --grow too');
    writeSheet('scale', grid, busy);
  }
  if (values.check && !check(name, bytes / CHUNK_BYTES / 8 / MIB)) process.exitCode = 1;
}

await main();
