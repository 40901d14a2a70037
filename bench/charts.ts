/** Charts of a result, as SVG. Drawn by Apache ECharts, which needs no browser for that. */

import * as echarts from 'echarts';
import {
  figureOf,
  inOrder,
  type Metric,
  type Point,
  type Sample,
  subjectsOf,
  worksOf,
} from './figures.ts';
import type { Result } from './result.ts';

const WIDTH = 960;
const HEIGHT = 440;
const MIB = 1 << 20;
const KILO = 1000;
/** Distinct also for those who see red and green alike. */
const COLORS = [
  '#0072b2',
  '#e69f00',
  '#009e73',
  '#cc79a7',
  '#56b4e9',
  '#d55e00',
  '#7f7f7f',
  '#000000',
];
/** Ours stand out in every chart. */
const isOurs = (subject: string): boolean => subject.startsWith('tidemark');

export interface Chart {
  /** Of the file, without '.svg'. */
  name: string;
  /** What it shows, for those who do not see it. */
  title: string;
  svg: string;
}

/** What the result has data for. */
export function chartsOf(result: Result): Chart[] {
  const charts = [
    bars(result, {
      name: 'iops',
      title: 'Thousands of operations a second; more is better',
      metric: 'iops',
      scale: 1 / KILO,
      suits: (work) => /-(4k|16k)(-|$)/.test(work),
    }),
    bars(result, {
      name: 'throughput',
      title: 'MiB/s of larger reads and writes; more is better',
      metric: 'bytes_per_s',
      scale: 1 / MIB,
      suits: (work) => /^(read|write)-(128k|256k|1m)$/.test(work),
    }),
    latencies(result, 'write-4k-qd1', 'latency-qd1'),
    latencies(result, 'write-4k-qd32', 'latency-qd32'),
    ...result.samples
      .filter(({ work, round }) => work === 'resync-loaded' && round === 1)
      .map((sample) => resyncOverTime(result, sample)),
  ];
  return charts.filter((chart) => chart !== null);
}

type Option = echarts.EChartsCoreOption;

function draw(name: string, title: string, option: Option): Chart {
  const chart = echarts.init(null, null, {
    renderer: 'svg',
    ssr: true,
    width: WIDTH,
    height: HEIGHT,
  });
  try {
    chart.setOption({
      animation: false,
      backgroundColor: '#ffffff',
      color: COLORS,
      title: { text: title, left: 8, top: 6, textStyle: { fontSize: 14 } },
      // Wide gaps: what a text takes is estimated, as there is no font here.
      legend: { top: 32, left: 8, itemWidth: 14, itemGap: 28 },
      grid: { left: 76, right: 76, top: 116, bottom: 60 },
      ...option,
    });
    return { name, title, svg: still(chart.renderToSVGString()) };
  } finally {
    chart.dispose();
  }
}

/** Without what is for a pointer over it, and is numbered through all charts of a process: a drawing is the same each time. */
function still(svg: string): string {
  return svg
    .replace(/ (class|ecmeta_\w+|pointer-events)="[^"]*"/g, '')
    .replace(/\bzr\d+-/g, '')
    .replace(/<style.*?<\/style>\s*/s, '');
}

interface BarsOptions {
  name: string;
  title: string;
  metric: Metric;
  scale: number;
  suits(work: string): boolean;
}

/** Works along the axis, one bar a subject. Only what the section of the devices measured: others are not beside each other. */
function bars(result: Result, options: BarsOptions): Chart | null {
  const suits = ({ subject, work, values }: Sample): boolean =>
    options.suits(work) && values[options.metric] !== undefined && !isOfLog(subject);
  const samples = result.samples.filter(suits);
  if (samples.length === 0) return null;
  const works = inOrder(worksOf(samples), result.titles.works);
  const subjects = inOrder(subjectsOf(samples), result.titles.subjects);
  return draw(options.name, options.title, {
    xAxis: {
      type: 'category',
      data: works.map((work) => result.titles.works[work] ?? work),
      axisLabel: { interval: 0, width: 90, overflow: 'break', fontSize: 10 },
    },
    yAxis: { type: 'value' },
    series: subjects.map((subject) => ({
      type: 'bar',
      name: result.titles.subjects[subject] ?? subject,
      itemStyle: isOurs(subject) ? {} : { opacity: 0.55 },
      data: works.map((work) => {
        const figure = figureOf(samples, subject, work, options.metric);
        return figure === null ? null : round(figure.median * options.scale);
      }),
    })),
  });
}

/** These are compared with each other alone. */
function isOfLog(subject: string): boolean {
  return /^tidemark-(hot|cold)/.test(subject);
}

const PERCENTILES: ReadonlyArray<[label: string, metric: Metric]> = [
  ['50 %', 'latency_us_p50'],
  ['99 %', 'latency_us_p99'],
  ['99.9 %', 'latency_us_p999'],
];

function latencies(result: Result, work: string, name: string): Chart | null {
  const samples = result.samples.filter(
    (sample) => sample.work === work && !isOfLog(sample.subject),
  );
  const subjects = inOrder(subjectsOf(samples), result.titles.subjects).filter(
    (subject) => figureOf(samples, subject, work, 'latency_us_p50') !== null,
  );
  if (subjects.length === 0) return null;
  const title = `Microseconds within which so many operations were done: ${result.titles.works[work] ?? work}; less is better`;
  return draw(name, title, {
    xAxis: { type: 'category', data: PERCENTILES.map(([label]) => label) },
    yAxis: { type: 'log' },
    series: subjects.map((subject) => ({
      type: 'bar',
      name: result.titles.subjects[subject] ?? subject,
      itemStyle: isOurs(subject) ? {} : { opacity: 0.55 },
      data: PERCENTILES.map(([, metric]) => {
        const figure = figureOf(samples, subject, work, metric);
        return figure === null ? null : round(figure.median);
      }),
    })),
  });
}

function resyncOverTime(result: Result, { subject, series }: Sample): Chart | null {
  if (series === undefined || series.copied_bytes.length === 0) return null;
  const seconds = (points: readonly Point[], scale: number): Point[] =>
    points.map(([ms, value]) => [round(ms / KILO), round(value * scale)]);
  const title = `${result.titles.subjects[subject] ?? subject}: a resync of everything, and an application that writes 4 KiB at random, one at a time`;
  return draw(`resync-${subject}`, title, {
    xAxis: { type: 'value', name: 's', min: 0 },
    yAxis: [
      { type: 'value', name: 'MiB copied' },
      { type: 'log', name: 'us a write', splitLine: { show: false } },
    ],
    series: [
      {
        type: 'line',
        name: 'copied',
        showSymbol: false,
        areaStyle: { opacity: 0.15 },
        data: seconds(series.copied_bytes, 1 / MIB),
      },
      {
        type: 'line',
        name: 'latency of the application, mean',
        showSymbol: false,
        yAxisIndex: 1,
        data: seconds(series.latency_us, 1),
      },
    ],
  });
}

/** Four digits are more than these figures hold. */
function round(value: number): number {
  return Number(value.toPrecision(4));
}
