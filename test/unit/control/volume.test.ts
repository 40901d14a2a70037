import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import { resolveConfig } from '../../../lib/config/resolve.ts';
import { ControlledVolume } from '../../../lib/control/volume.ts';
import { FakeReplication } from './fake_replication.ts';

const ignore = () => undefined;

test('R18: a command that comes while the volume is opened has its turn after recovery, which asks first', async () => {
  const { config } = resolveConfig(
    {
      volumes: [
        {
          name: 'r0',
          nodes: {
            alpha: { backing: '/a', address: '127.0.0.1:1', frontend: { kind: 'ublk', id: 5 } },
            beta: { backing: '/b', address: '127.0.0.1:2' },
          },
        },
      ],
    },
    { path: '/c.ts', hostname: 'alpha' },
  );
  const fake = new FakeReplication();
  fake.attach = { crashed: true, crashedPrimary: true };
  fake.peerAnswers.push('beta is primary');
  const volume = new ControlledVolume(config.volumes[0]!, {
    replication: fake,
    record: { read: () => 5, write: ignore, remove: ignore, deviceExists: () => true },
    callPolicy: () => Promise.reject(new TidemarkError('POLICY_WORKER', 'no script here')),
    secret: null,
    log: { debug: ignore, info: ignore, warn: ignore, error: ignore },
  });
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

test.run();
