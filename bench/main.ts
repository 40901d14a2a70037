/**
 * `npm run bench [-- --rounds N --seconds S --json FILE]`: fio over NBD on this machine, Tidemark beside its peer in the same run.
 *
 * The peer is nbdkit's file plugin, which does not replicate. The subjects take turns, several rounds; what counts is the ratio of
 * the medians. Machines differ and are shared: single figures say little.
 */

import { spawn } from 'node:child_process';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { Cluster, NODES, VOLUME } from '../lib/demo/cluster.ts';

const MIB = 1 << 20;
const SIZE_BYTES = 256 * MIB;

interface Work {
  name: string;
  fio: string[];
  /** Which side of fio's report counts. */
  side: 'read' | 'write';
}

const WORKS: Work[] = [
  { name: '4k randwrite QD1', fio: ['--rw=randwrite', '--bs=4k', '--iodepth=1'], side: 'write' },
  { name: '4k randwrite QD32', fio: ['--rw=randwrite', '--bs=4k', '--iodepth=32'], side: 'write' },
  { name: '256k write QD8', fio: ['--rw=write', '--bs=256k', '--iodepth=8'], side: 'write' },
  { name: '4k randread QD32', fio: ['--rw=randread', '--bs=4k', '--iodepth=32'], side: 'read' },
];

interface Subject {
  name: string;
  start(): Promise<string>;
  stop(): Promise<void>;
}

interface Figure {
  subject: string;
  work: string;
  iops: number[];
}

const quiet = (): void => {};

function tidemark(name: string, protocol: 'A' | 'C', connected: boolean): Subject {
  let cluster: Cluster | null = null;
  return {
    name,
    async start() {
      cluster = await Cluster.make('nbd', SIZE_BYTES + 64 * MIB, quiet, protocol);
      for (const node of NODES) await cluster.run(node, ['create']);
      for (const node of NODES) await cluster.up(node);
      await cluster.run('alpha', ['primary', '--force']);
      const volume = await cluster.until(
        'alpha',
        (now) => now.peers[0]?.connection === 'Connected' && now.peers[0].disk === 'UpToDate',
        'in sync',
      );
      if (!connected) {
        await cluster.run('alpha', ['disconnect']);
        await cluster.until('alpha', (now) => now.peers[0]?.connection === 'StandAlone', 'apart');
      }
      return `nbd+unix:///${VOLUME}?socket=${volume.device}`;
    },
    async stop() {
      await cluster?.remove();
      cluster = null;
    },
  };
}

function nbdkit(): Subject {
  let end: (() => Promise<void>) | null = null;
  return {
    name: 'nbdkit file, unreplicated',
    async start() {
      const directory = await mkdtemp(join(tmpdir(), 'tidemark-bench-'));
      const file = await open(join(directory, 'disk'), 'w');
      await file.truncate(SIZE_BYTES + 64 * MIB);
      await file.close();
      const socket = join(directory, 'socket');
      const child = spawn('nbdkit', ['-f', '-U', socket, 'file', join(directory, 'disk')], {
        stdio: 'ignore',
      });
      end = async () => {
        const ended = new Promise((resolve) => child.once('exit', resolve));
        child.kill('SIGTERM');
        await ended;
        await rm(directory, { recursive: true, force: true });
      };
      for (let tries = 0; tries < 100; ++tries) {
        if ((await run('nbdinfo', ['--size', `nbd+unix:///?socket=${socket}`])).code === 0) break;
      }
      return `nbd+unix:///?socket=${socket}`;
    },
    async stop() {
      await end?.();
      end = null;
    },
  };
}

async function run(program: string, args: string[]): Promise<{ code: number; out: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    child.stdout.on('data', (text) => {
      out += String(text);
    });
    child.once('error', reject);
    child.once('close', (code) => resolve({ code: code ?? 1, out }));
  });
}

async function fio(uri: string, work: Work, seconds: number): Promise<number> {
  const args = [
    '--name=bench',
    '--ioengine=nbd',
    `--uri=${uri}`,
    `--size=${SIZE_BYTES}`,
    '--time_based',
    `--runtime=${seconds}`,
    '--randseed=1',
    '--output-format=json',
    ...work.fio,
  ];
  const { code, out } = await run('fio', args);
  if (code !== 0) throw new Error(`fio ended with status ${code}`);
  const report = JSON.parse(out.slice(out.indexOf('{'))) as {
    jobs: Array<Record<'read' | 'write', { iops: number }>>;
  };
  const job = report.jobs[0];
  if (job === undefined) throw new Error('fio reported no job');
  return job[work.side].iops;
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '3' },
      json: { type: 'string' },
    },
  });
  const rounds = Number(values.rounds);
  const seconds = Number(values.seconds);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) {
    throw new Error(`--rounds: ${values.rounds} is not an integer from 1 to 100`);
  }
  if (!Number.isInteger(seconds) || seconds < 1 || seconds > 600) {
    throw new Error(`--seconds: ${values.seconds} is not an integer from 1 to 600`);
  }
  const peer = nbdkit();
  const subjects = [
    peer,
    tidemark('Tidemark, protocol C', 'C', true),
    tidemark('Tidemark, protocol A', 'A', true),
    tidemark('Tidemark, peer away', 'C', false),
  ];
  const figures = new Map<string, Figure>();
  for (let round = 1; round <= rounds; ++round) {
    for (const subject of subjects) {
      console.error(`round ${round}/${rounds}: ${subject.name}`);
      try {
        const uri = await subject.start();
        for (const work of WORKS) {
          const key = `${subject.name}/${work.name}`;
          const figure = figures.get(key) ?? { subject: subject.name, work: work.name, iops: [] };
          figure.iops.push(await fio(uri, work, seconds));
          figures.set(key, figure);
        }
      } finally {
        await subject.stop();
      }
    }
  }
  const table = new Table({
    head: ['IOPS, median (ratio to nbdkit)', ...WORKS.map((w) => w.name)],
  });
  const of = (subject: string, work: string): number =>
    median(figures.get(`${subject}/${work}`)?.iops ?? []);
  for (const subject of subjects) {
    table.push([
      subject.name,
      ...WORKS.map(({ name }) => {
        const own = of(subject.name, name);
        return `${Math.round(own)} (${(own / of(peer.name, name)).toFixed(2)})`;
      }),
    ]);
  }
  console.log(table.toString());
  if (values.json !== undefined) {
    await writeFile(values.json, `${JSON.stringify([...figures.values()], null, 2)}\n`);
  }
}

await main();
