import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { performanceText, replaceBetween, unquotable } from '../../../bench/docs.ts';
import { grids, markdownTable, remarks, targetGrid } from '../../../bench/report.ts';
import { sampleResult } from './result_samples.ts';

test('a grid has works down and subjects across, in the order of the titles, with median and spread', () => {
  const iops = grids(sampleResult()).find(({ title }) => title === 'IOPS');
  assert.equal(iops?.head, ['', 'peer', 'tidemark-c']);
  assert.equal(iops?.rows, [['4 KiB random write, QD 32', '500', '2,000 ±50%']]);
});

test('a column or row without a figure is left out', () => {
  const wire = grids(sampleResult()).find(({ title }) => title.startsWith('Bytes on the wire'));
  assert.is(wire, undefined);
  const rates = grids(sampleResult()).find(({ title }) => title === 'MiB/s');
  assert.equal(rates?.rows, [
    ['128 KiB read, QD 8', '1.0', ''],
    ['during a resync', '', '4.0'],
  ]);
});

test('a target that was not measured says so', () => {
  const all = targetGrid(sampleResult()).rows;
  const [limit] = sampleResult().limits;
  const rows = all.filter(([what]) => what !== limit?.what);
  assert.ok(rows.length > 0);
  assert.equal(all.at(-1), ['attach of 16 TiB, s', 'at most 2', '0.5', 'yes']);
  assert.ok(rows.every((row) => row[2] === 'not measured' && row[3] === 'no'));
});

test('what is missing, and that the machine was busy, is told', () => {
  const result = {
    ...sampleResult(),
    busy_before: 0.4,
    missing: [{ subject: 'drbd-c', work: null, reason: 'no module\nsecond line' }],
  };
  const text = remarks(result).join('\n');
  assert.match(text, /40 % busy before the run: figures are NOT to be quoted/);
  assert.match(text, /^not measured: drbd-c: no module$/m);
});

test('a table in Markdown', () => {
  const table = markdownTable({ title: '', head: ['', 'a'], rows: [['x|y', '1']] });
  assert.is(table, '|  | a |\n| --- | --- |\n| x\\|y | 1 |');
});

test('only a whole run of several rounds on a quiet machine is for the documents', () => {
  const result = sampleResult();
  assert.is(unquotable(result, []), null);
  assert.match(unquotable({ ...result, busy_before: 0.06 }, []) ?? '', /6 % busy/);
  assert.is(unquotable({ ...result, waited: 0.04 }, []), null);
  assert.match(unquotable({ ...result, waited: 0.3 }, []) ?? '', /waited .* for 30 %/);
  assert.match(unquotable(result, ['devices']) ?? '', /--only/);
  assert.match(unquotable({ ...result, rounds: 2 }, []) ?? '', /2 rounds/);
  assert.match(unquotable({ ...result, profiled: true }, []) ?? '', /--profile/);
  const beside = { ...result.samples[0]!, subject: 'tidemark-c-beside' };
  assert.match(unquotable({ ...result, samples: [beside] }, []) ?? '', /--beside/);
  const missing = [{ subject: 'md', work: 'write-4k-qd1', reason: 'it broke' }];
  assert.match(unquotable({ ...result, missing }, []) ?? '', /md, write-4k-qd1, .*it broke/);
});

test('what is between the markers is replaced, and nothing else', () => {
  const text = 'before\n<!-- bench vm -->\nold\n<!-- bench vm end -->\nafter\n';
  const replaced = replaceBetween(text, 'vm', 'new\n');
  assert.is(replaced, 'before\n<!-- bench vm -->\nnew\n<!-- bench vm end -->\nafter\n');
  assert.is(replaceBetween(replaced, 'vm', 'new\n'), replaced);
  assert.throws(() => replaceBetween(text, 'here', ''), /expected one '<!-- bench here -->'/);
  assert.throws(() => replaceBetween(`${text}${text}`, 'vm', ''), /expected one/);
});

test('the documents have the markers, and take a result', () => {
  const top = new URL('../../../', import.meta.url);
  const read = (path: string) => readFileSync(fileURLToPath(new URL(path, top)), 'utf8');
  for (const where of ['here', 'vm'] as const) {
    const text = performanceText({ ...sampleResult(), where }, []);
    assert.ok(replaceBetween(read('docs/performance.md'), where, text).includes('2,000 ±50%'));
  }
  assert.ok(replaceBetween(read('README.md'), 'here', 'a chart\n').includes('a chart'));
});

test.run();
