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
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { checkLimit, type Limit, tellChecks } from './checks.ts';
import { integer } from './options.ts';
import type { Grid } from './report.ts';
import { watchBusy } from './run.ts';
import { type Attach, attach } from './scale_attach.ts';
import { NODES, type NodeName, ScalePair } from './scale_pair.ts';
import { type Copy, MIB, prepare, ScalePlace, type Shape, spread } from './scale_place.ts';
import { showSheet, writeSheet } from './sheet.ts';

const TIB = 2 ** 40;
const CHUNK_BYTES = 4096;
/** What daemons are compared with: everything that a process needs whatever its volume's size. */
const SMALL_BYTES = 64 * MIB;
const LOG_EXTENTS_MAX = 65_534;
/** Extents that are hot in a log of that size. */
const HOT_MAX = 60_000;
const GROWTH: Shape[] = [
  { bytes: TIB, chunkBytes: CHUNK_BYTES },
  { bytes: 4 * TIB, chunkBytes: CHUNK_BYTES },
  { bytes: 16 * TIB, chunkBytes: CHUNK_BYTES, logExtents: LOG_EXTENTS_MAX },
  { bytes: 64 * TIB, chunkBytes: CHUNK_BYTES },
  { bytes: 1024 * TIB, chunkBytes: 64 * 1024 },
];

const ATTACH_SECONDS_MAX = 2;
const BEYOND_MAP_MIB_MAX = 64;

export interface Step {
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

function label({ bytes, chunkBytes, logExtents }: Shape): string {
  const size = bytes >= TIB ? `${bytes / TIB} TiB` : `${bytes / MIB} MiB`;
  const log = logExtents === undefined ? '' : `, log of ${logExtents}`;
  return `${size}, ${chunkBytes / 1024} KiB${log}`;
}

type Copies = Record<NodeName, Copy>;

/** Both copies, as after a full resync. */
async function inStep(place: ScalePlace, shape: Shape): Promise<Copies> {
  const name = label(shape);
  const made: Copy[] = [];
  for (const node of NODES) {
    const [copy, seconds] = await place.create(`${node}-${name.replaceAll(/\W+/g, '-')}`, shape);
    made.push(copy);
    if (node === 'alpha') tell(name, 'create', { seconds });
  }
  const [alpha, beta] = made as [Copy, Copy];
  prepare('in-step', alpha.metadata, 'alpha', beta.metadata, 'beta');
  return { alpha, beta };
}

async function oneNode(place: ScalePlace, shape: Shape, copies: Copies, hot: number) {
  const name = label(shape);
  tellAttach(name, 'attach', await attach(place, copies.alpha));
  await attach(place, copies.alpha, hot);
  tellAttach(name, 'attach after a crash', await attach(place, copies.alpha));
}

/** The peak of memory of a small volume's daemon: what it needs itself. */
async function smallDaemon(place: ScalePlace): Promise<number> {
  const shape = { bytes: SMALL_BYTES, chunkBytes: CHUNK_BYTES };
  const pair = await ScalePair.make(place, await inStep(place, shape));
  try {
    const seconds = await pair.up('alpha', '--primary');
    tell(label(shape), 'daemon up', { seconds, grown_mib: 0 });
    return pair.peakBytes('alpha');
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
  shape: Shape,
  copies: Copies,
  hot: number,
  marks: number,
) {
  const name = label(shape);
  const { bytes } = shape;
  const small = await smallDaemon(place);
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

/** What has a target. @param steps without one of them it counts as not measured */
export function scaleLimits(steps: readonly Step[], shape: Shape): Limit[] {
  const name = label(shape);
  const of = (step: string) => steps.find((one) => one.volume === name && one.step === step);
  const crashed = of('attach after a crash');
  const marked = of('attach, every map block marked')?.grown_mib ?? null;
  const mapMib = shape.bytes / shape.chunkBytes / 8 / MIB;
  return [
    {
      what: `${name}: attach after a crash, s`,
      value: crashed?.seconds ?? null,
      at_most: ATTACH_SECONDS_MAX,
    },
    // All of it counts, the touched part of the map too.
    {
      what: `${name}: attach after a crash, MiB grown`,
      value: crashed?.grown_mib ?? null,
      at_most: BEYOND_MAP_MIB_MAX,
    },
    {
      what: `${name}: attach with every map block marked, MiB beyond the map`,
      value: marked === null ? null : marked - mapMib,
      at_most: BEYOND_MAP_MIB_MAX,
    },
    {
      what: `${name}: daemon after kill -9, MiB beyond a small volume's`,
      value: of('daemon up after kill -9')?.grown_mib ?? null,
      at_most: BEYOND_MAP_MIB_MAX,
    },
  ];
}

export interface ScaleOptions {
  shape: Shape;
  /** Blocks that are dirty when two daemons link again. */
  marks: number;
  /** Extents that are hot at a crash. */
  hot: number;
  /** Up to 1 PiB, too. */
  grow: boolean;
}

export const DEFAULTS: ScaleOptions = {
  shape: { bytes: 16 * TIB, chunkBytes: CHUNK_BYTES },
  marks: 10,
  hot: 1000,
  grow: false,
};

/** Once in a process: the steps add up. */
export async function measureScale({ shape, marks, hot, grow }: ScaleOptions): Promise<Step[]> {
  const place = new ScalePlace();
  const remove = (copies: Copies) => {
    for (const copy of Object.values(copies)) place.removeCopy(copy);
  };
  try {
    const first = await inStep(place, shape);
    await oneNode(place, shape, first, hot);
    remove(first);
    const second = await inStep(place, shape);
    await twoDaemons(place, shape, second, hot, marks);
    prepare('mark', second.beta.metadata);
    tellAttach(label(shape), 'attach, every map block marked', await attach(place, second.beta));
    remove(second);
    for (const other of grow ? GROWTH : []) {
      const copies = await inStep(place, other);
      await oneNode(place, other, copies, other.logExtents === undefined ? hot : HOT_MAX);
      remove(copies);
    }
  } finally {
    await place.remove();
  }
  return steps;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      size: { type: 'string', default: String(DEFAULTS.shape.bytes / TIB) },
      marks: { type: 'string', default: String(DEFAULTS.marks) },
      hot: { type: 'string', default: String(DEFAULTS.hot) },
      grow: { type: 'boolean', default: false },
      json: { type: 'string' },
      check: { type: 'boolean', default: false },
      docs: { type: 'boolean', default: false },
    },
  });
  const options: ScaleOptions = {
    shape: { bytes: integer(values.size, 'size', 64) * TIB, chunkBytes: CHUNK_BYTES },
    marks: integer(values.marks, 'marks', 1000),
    hot: integer(values.hot, 'hot', 1237),
    grow: values.grow,
  };
  const busy = await watchBusy();
  await measureScale(options);
  const grid = gridOf();
  showSheet(grid);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(steps, null, 2)}\n`);
  if (values.docs) {
    if (!values.grow) throw new Error('--docs: the growth to 1 PiB is missing, give --grow too');
    writeSheet('scale', grid, busy);
  }
  if (!values.check) return;
  if (!tellChecks(scaleLimits(steps, options.shape).map(checkLimit))) process.exitCode = 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
