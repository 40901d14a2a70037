import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { chartsOf } from '../../../bench/charts.ts';
import type { Result } from '../../../bench/result.ts';
import { sampleResult } from './result_samples.ts';

const svgOf = (result: Result, name: string): string => {
  const chart = chartsOf(result).find((one) => one.name === name);
  assert.ok(chart, `a chart '${name}'`);
  return chart!.svg;
};

test('each chart is one SVG with the names of its subjects', () => {
  const charts = chartsOf(sampleResult());
  assert.equal(
    charts.map(({ name }) => name),
    ['iops', 'throughput', 'latency-qd32', 'resync-tidemark-resync'],
  );
  for (const { svg } of charts) {
    assert.match(svg, /^<svg [^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
    assert.match(svg, /<\/svg>\s*$/);
  }
  assert.match(svgOf(sampleResult(), 'iops'), />Peer &lt;one&gt;</);
  assert.match(svgOf(sampleResult(), 'iops'), />Tidemark, protocol C</);
});

test('what is twice as much has a bar twice as high', () => {
  const heights = (ours: number): number[] => {
    const result = sampleResult();
    for (const sample of result.samples) {
      if (sample.work === 'write-4k-qd32') sample.values.iops = 1000;
      if (sample.work === 'write-4k-qd32' && sample.subject === 'tidemark-c') {
        sample.values.iops = ours;
      }
    }
    const svg = svgOf(result, 'iops');
    // A bar is a closed rectangle of relative lines; its second number is how far up it goes.
    return [...svg.matchAll(/<path d="M[\d.]+ ([\d.]+)l[\d.]+ 0l0 (-[\d.]+)l-/g)].map((match) =>
      Math.abs(Number(match[2])),
    );
  };
  const [peer = 0, ours = 0] = heights(2000);
  assert.ok(peer > 0);
  assert.ok(Math.abs(ours / peer - 2) < 0.02, `${ours} / ${peer}`);
});

test('without data there is no chart', () => {
  assert.equal(chartsOf({ ...sampleResult(), samples: [] }), []);
});

test('a drawing is the same each time', () => {
  const drawn = () =>
    chartsOf(sampleResult())
      .map(({ svg }) => svg)
      .join();
  const [first, second] = [drawn(), drawn()];
  // Not with assert.is, which would print both.
  assert.ok(first === second);
});

test.run();
