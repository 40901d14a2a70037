import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import { resolveConfig } from '../../../lib/config/resolve.ts';
import type { VolumeNode } from '../../../lib/config/types.ts';
import { ControlledVolume } from '../../../lib/control/volume.ts';
import { FakeReplication } from './fake_replication.ts';

const ignore = () => undefined;

function make(fake: FakeReplication, frontend?: VolumeNode['frontend']): ControlledVolume {
  const { config } = resolveConfig(
    {
      volumes: [
        {
          name: 'r0',
          nodes: {
            alpha: { backing: '/a', address: '127.0.0.1:1', ...(frontend && { frontend }) },
            beta: { backing: '/b', address: '127.0.0.1:2' },
          },
        },
      ],
    },
    { path: '/c.ts', hostname: 'alpha' },
  );
  return new ControlledVolume(config.volumes[0]!, {
    replication: fake,
    record: { read: () => 5, write: ignore, remove: ignore, deviceExists: () => true },
    callPolicy: () => Promise.reject(new TidemarkError('POLICY_WORKER', 'no script here')),
    secret: null,
    log: { debug: ignore, info: ignore, warn: ignore, error: ignore },
  });
}

test('R18: a command that comes while the volume is opened has its turn after recovery, which asks first', async () => {
  const fake = new FakeReplication();
  fake.attach = { crashed: true, crashedPrimary: true };
  fake.peerAnswer = 'beta is primary';
  const volume = make(fake, { kind: 'ublk', id: 5 });
  const started = volume.start();
  const demoted = volume.demote(false).then(
    () => null,
    (error: TidemarkError) => error,
  );
  await started;
  assert.is((await demoted)?.code, 'SUSPENDED');
  assert.equal(fake.calls.slice(3), ['startFrontend r0 ublk recover', 'askPeers r0 10000']);
  await volume.close();
});

/** As of a volume whose thread does not answer: status stays what it is now. */
async function staleStatus(fake: FakeReplication): Promise<void> {
  const old = await fake.status('r0');
  old.native.ageUs = 20_000;
  fake.status = async () => old;
}

test('a volume is demoted also when an old status tells that it is secondary', async () => {
  const fake = new FakeReplication();
  const volume = make(fake);
  await volume.start();
  await staleStatus(fake);
  await volume.promote(true);
  await volume.demote(false);
  assert.is(fake.volumes.get('r0')!.status.native.role, 'secondary');
  await volume.close();
});

test('a volume is promoted also when an old status tells that it is primary', async () => {
  const fake = new FakeReplication();
  const volume = make(fake);
  await volume.start();
  await volume.promote(true);
  await staleStatus(fake);
  await volume.demote(false);
  await volume.promote(false);
  assert.is(fake.volumes.get('r0')!.status.native.role, 'primary');
  await volume.close();
});

test.run();
