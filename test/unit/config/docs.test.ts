import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { BACKING, GEOMETRY, NBD, POLICY, TIMEOUTS, UBLK } from '../../../lib/config/limits.ts';
import { limitTable } from './limit_table.ts';

const docs = readFileSync(
  fileURLToPath(new URL('../../../docs/CONFIG.md', import.meta.url)),
  'utf8',
);

const TABLES = {
  'the geometry': GEOMETRY,
  timeouts: TIMEOUTS,
  'asyncWindow, flushInterval and policyDeadline': {
    'asyncWindow.writes': POLICY.windowWrites,
    'asyncWindow.bytes': POLICY.windowBytes,
    flushInterval: POLICY.flushInterval,
    policyDeadline: POLICY.deadline,
  },
  ublk: UBLK,
  nbd: NBD,
  'metadata and locks': {
    'metadata.offset': BACKING.metadataOffset,
    lockTimeout: BACKING.lockTimeout,
  },
};

for (const [what, limits] of Object.entries(TABLES)) {
  test(`docs/CONFIG.md has the defaults and ranges of ${what}`, () => {
    const table = limitTable(limits);
    assert.ok(docs.includes(table), `docs/CONFIG.md should have\n${table}`);
  });
}

test.run();
