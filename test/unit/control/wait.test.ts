import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { ControlClient } from '../../../lib/control/client.ts';
import type { VolumeJson } from '../../../lib/control/status.ts';
import { reached, waitForGoal } from '../../../lib/control/wait.ts';

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

test('what a daemon that is stuck told before the wait began does not count', async () => {
  const ages = [60_000, 60_000, 0];
  let asked = 0;
  const client = {
    subscribe: async (listener: () => void) => {
      setImmediate(listener);
    },
    call: async () => {
      const status_age_ms = ages[asked]!;
      asked += 1;
      return { volumes: [{ ...linked(0), status_age_ms }] };
    },
  } as unknown as ControlClient;
  await waitForGoal(client, 'synced', undefined, null);
  assert.is(asked, 3);
});

test.run();
