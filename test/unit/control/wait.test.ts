import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { VolumeJson } from '../../../lib/control/status.ts';
import { reached } from '../../../lib/control/wait.ts';

const linked = (dirty_chunks: number) =>
  ({
    disk: 'UpToDate',
    peers: [{ name: 'beta', connection: 'Connected', resync: null, dirty_chunks }],
  }) as unknown as VolumeJson;

test('synced: linked, and nothing is marked for the peer', () => {
  assert.is(reached(linked(0), 'synced'), true);
});

test('not synced while the chunks of a write that failed are left to copy', () => {
  assert.is(reached(linked(256), 'synced'), false);
  assert.is(reached(linked(256), 'connected'), true);
});

test.run();
