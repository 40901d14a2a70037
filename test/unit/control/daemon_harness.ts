// A daemon over a fake replication, for the tests of what it does and in what order.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import * as assert from 'uvu/assert';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import { resolveConfig } from '../../../lib/config/resolve.ts';
import type { Volume, VolumeNode } from '../../../lib/config/types.ts';
import { Daemon, type DaemonOptions } from '../../../lib/control/daemon.ts';
import { socketPath } from '../../../lib/control/socket_claim.ts';
import { scratchFolder } from '../config/scratch.ts';
import { FakeReplication } from './fake_replication.ts';

const folder = scratchFolder('daemon');
let runs = 0;

export const NBD = { kind: 'nbd', socket: '/tmp/r0.sock' } as const;
export const UBLK = { kind: 'ublk', id: 5 } as const;

export function volume(frontend?: VolumeNode['frontend'], more: Partial<Volume> = {}): Volume {
  return {
    name: 'r0',
    nodes: {
      alpha: {
        backing: '/a',
        address: '127.0.0.1:1',
        ...(frontend === undefined ? {} : { frontend }),
      },
      beta: { backing: '/b', address: '127.0.0.1:2' },
    },
    timeouts: { recoveryTimeout: 300 },
    ...more,
  };
}

/** In a run folder and a /sys of its own. */
export function harness(volumes: Volume[] = [volume(NBD)], more: Partial<DaemonOptions> = {}) {
  runs += 1;
  const runFolder = join(folder, `run${runs}`);
  const sysfs = join(folder, `sys${runs}`);
  mkdirSync(sysfs);
  mkdirSync(runFolder);
  const { config } = resolveConfig({ volumes }, { path: '/c.ts', hostname: 'alpha' });
  const fake = new FakeReplication();
  const path = socketPath(config, runFolder);
  const closed = { scripts: 0 };
  const daemon = new Daemon({
    version: '1.2.3',
    node: config.node,
    name: 'd',
    runFolder,
    socketPath: path,
    volumes: config.volumes,
    scripts: {
      call: () => Promise.reject(new TidemarkError('POLICY_WORKER', 'no script here')),
      close: async () => {
        closed.scripts += 1;
      },
    },
    startReplication: async () => fake,
    primary: false,
    force: false,
    log: pino({ level: 'silent' }),
    sysfs,
    ...more,
  });
  return { daemon, fake, path, runFolder, sysfs, closed };
}

export async function failure(promise: Promise<unknown>): Promise<TidemarkError> {
  const error = await promise.then(
    () => null,
    (e) => e,
  );
  assert.instance(error, TidemarkError);
  return error as TidemarkError;
}

export const ENDING = ['close r0', 'shutdown'];

export async function until(check: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await check())) await new Promise((resolve) => setTimeout(resolve, 5));
}
