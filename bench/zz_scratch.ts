import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { Here } from './place.ts';
import { Tidemark } from './subjects/tidemark.ts';
import { NodeSockets } from './subjects/node_sockets.ts';
import { EVERYTHING, SCATTERED, measureResync, measureResyncUnderLoad } from './resync.ts';


// node zz_scratch.ts ROUNDS WORKS CHECKOUT[,CHECKOUT...] [PERF]
const rounds = Number(process.argv[2] ?? 3);
const works = (process.argv[3] ?? 'full,loaded').split(',');
const variants = (process.argv[4] ?? '/work/wt/micro').split(',');
const perf = process.argv[5];
const MIB = 1 << 20;
const n = new NodeSockets();
const f = (x: number) => (x / MIB).toFixed(0);
const all: { name: string; place: Here; t: Tidemark; rows: Record<string, number[]> }[] = [];
const med = (x: number[]) => x.toSorted((a, b) => a - b)[x.length >> 1]!;
try {
  await n.start();
  for (const v of variants) {
    const place = new Here(resolve(v));
    const t = new Tidemark({ id: 't', title: 't', bytes: Number(process.env.RS_MIB ?? 512) * MIB, protocol: (process.env.RS_PROTO ?? 'C') as 'C' });
    await t.start(place);
    all.push({ name: v.split('/').at(-1)!, place, t, rows: {} });
  }
  for (let i = 0; i < rounds; ++i) {
    for (const one of all) {
      const { t, rows } = one;
      const carry = await n.carry(0.5);
      const out = [`${one.name}: carry ${f(carry)} MiB/s`];
      const add = (k: string, x: number) => (rows[k] ??= []).push(x);
      for (const w of works) {
        if (perf) {
          const orig = t.connect.bind(t);
          t.connect = async () => {
            spawn('perf', ['record', '-g', '-F', '1999', '-o', `${perf}.${w}`, '-p', t.pids()!.join(','), 'sleep', '2'], { stdio: 'ignore' });
            await new Promise((r) => setTimeout(r, 300));
            await orig();
            t.connect = orig;
          };
        }
        const m = w === 'loaded' ? await measureResyncUnderLoad(t) : await measureResync(t, w === 'full' ? EVERYTHING : SCATTERED);
        const v = m.values as Record<string, number>;
        add(`${w} ratio`, v.bytes_per_s! / carry);
        add(`${w} MiB/s`, v.bytes_per_s! / MIB);
        add(`${w} cpu`, v.cpu_s_per_gib!);
        out.push(`${w} ${f(v.bytes_per_s!)} (${(v.bytes_per_s! / carry).toFixed(2)}) cpu/GiB ${v.cpu_s_per_gib!.toFixed(2)}`);
        if (v.latency_us_p50) {
          for (const k of ['p50', 'p99']) add(`${w} ${k}`, v[`latency_us_${k}`]!);
          add(`${w} iops`, v.iops!);
          out.push(`p50 ${v.latency_us_p50.toFixed(0)} p99 ${v.latency_us_p99!.toFixed(0)} iops ${v.iops!.toFixed(0)}`);
        }
      }
      console.log(out.join(' | '));
    }
  }
  for (const { name, rows } of all)
    console.log(name, Object.entries(rows).map(([k, v]) => `${k} ${med(v).toPrecision(3)}`).join(' | '));
} finally {
  await n.stop();
  for (const { t, place } of all) {
    await t.stop();
    await place.close();
  }
}
