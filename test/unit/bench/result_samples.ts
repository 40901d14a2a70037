// A small result with something of everything, for tests of what is made from results.
import { RESULT_FORMAT, type Result } from '../../../bench/result.ts';

export function sampleResult(): Result {
  return {
    format: RESULT_FORMAT,
    where: 'here',
    began: '2026-01-02T03:04:05.000Z',
    elapsed_s: 60,
    kernel: '6.12.0',
    cpus: 2,
    node: '20.19.0',
    rounds: 3,
    seconds_each: 1,
    busy_before: 0.01,
    waited: null,
    titles: {
      subjects: {
        peer: 'Peer <one>',
        'tidemark-c': 'Tidemark, protocol C',
        'tidemark-resync': 'Tidemark, protocol C',
      },
      works: {
        'write-4k-qd32': '4 KiB random write, QD 32',
        'read-128k': '128 KiB read, QD 8',
        'resync-loaded': 'during a resync',
      },
    },
    samples: [
      // Ours comes first: the titles, and not the samples, give the order.
      ...[1, 2, 3].map((round) => ({
        subject: 'tidemark-c',
        work: 'write-4k-qd32',
        round,
        values: {
          iops: 1000 * round,
          latency_us_p50: 10,
          latency_us_p99: 100,
          latency_us_p999: 900,
        },
      })),
      {
        subject: 'peer',
        work: 'write-4k-qd32',
        round: 1,
        values: { iops: 500, latency_us_p50: 20, latency_us_p99: 30, latency_us_p999: 40 },
      },
      { subject: 'peer', work: 'read-128k', round: 1, values: { iops: 8, bytes_per_s: 1 << 20 } },
      {
        subject: 'tidemark-resync',
        work: 'resync-loaded',
        round: 1,
        values: { bytes_per_s: 4 << 20, latency_us_p50: 50, resync_ms: 1234 },
        series: {
          copied_bytes: [
            [500, 0],
            [1000, 4 << 20],
          ],
          latency_us: [
            [0, 10],
            [700, 90],
          ],
        },
      },
    ],
    limits: [{ what: 'attach of 16 TiB, s', value: 0.5, at_most: 2 }],
    missing: [],
  };
}
