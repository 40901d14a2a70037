// The shared secret: both sides prove it, or there is no link.
import { strict as assert } from 'node:assert';
import { type Scenario, scenario } from '../vm/guest/support.ts';
import { Cluster } from './cluster.ts';
import { hashArea } from './disks.ts';
import { Ledger } from './ledger.ts';
import type { Place } from './place.ts';

const REFUSING = new Set(['Refused', 'Connecting', 'Unconnected', 'Handshake']);

export function secretScenarios(place: Place): Scenario[] {
  const { kind } = place;
  const refusals: ReadonlyArray<[string, Record<string, unknown>, Record<string, unknown>]> = [
    ['another secret', { secret: 'the secret of all' }, { secret: 'another secret' }],
    ['no secret', { secret: 'the secret of all' }, {}],
  ];
  return [
    ...refusals.map(([what, alphaOwn, betaOwn]) =>
      scenario(
        `${kind}: a peer with ${what} is refused on both sides, which say why; nothing is copied`,
        async (t) => {
          const cluster = await Cluster.create(t, place, {
            volumeOf: { alpha: alphaOwn, beta: betaOwn },
          });
          const { alpha, beta, link } = cluster;
          await alpha.up('--primary', '--force');
          const device = await alpha.open();
          await new Ledger(device.sizeBytes).write(device, 0, 10);
          await device.flush();
          const before = await hashArea(beta.dataArea);
          await beta.up();
          for (const node of cluster.nodes) {
            const volume = await node.until('the refusal', (_, peer) => {
              return REFUSING.has(peer.connection) && /secret/i.test(peer.reason);
            });
            assert.doesNotMatch(JSON.stringify(volume), /the secret of all|another secret/);
            assert.doesNotMatch(node.daemon!.output, /the secret of all|another secret/);
          }
          const tries = link.attempts;
          await alpha.until('another try', () => link.attempts > tries + 2);
          assert.equal(await hashArea(beta.dataArea), before);
          await cluster.down();
        },
        { timeoutMs: place.scenarioMs },
      ),
    ),

    scenario(
      `${kind}: the same secret from text, a file or the environment makes a link`,
      async (t) => {
        const cluster = await Cluster.form(t, place, {
          volumeOf: {
            alpha: { secret: 'the secret of all' },
            beta: { secret: { file: 'secret.txt' } },
          },
          files: { 'secret.txt': 'the secret of all\n' },
        });
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),
  ];
}
