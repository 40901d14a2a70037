// One side is told to yield while the peer is away, and is written to afterwards.
import { strict as assert } from 'node:assert';
import { type Scenario, scenario } from '../vm/guest/support.ts';
import { Cluster } from './cluster.ts';
import { hashArea } from './disks.ts';
import { Ledger } from './ledger.ts';
import type { Place } from './place.ts';

export function hostileYieldScenarios(place: Place): Scenario[] {
  return [
    scenario(
      `${place.kind}: what is written after a side was told to yield is not thrown away unasked`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, beta, link } = cluster;
        link.cut();
        await alpha.unlinked();
        await beta.unlinked();
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        await ledger.write(device, 10, 20);
        await device.flush();
        // Said too early, and forgotten.
        await beta.cli(['connect', 'alpha', '--discard-my-data']);
        await beta.cli(['primary', '--force']);
        const other = await beta.open();
        const foreign = new Ledger(other.sizeBytes, 77);
        await foreign.write(other, 20, 30);
        await other.flush();
        await other.close();
        await beta.cli(['secondary']);

        const before = await Promise.all(cluster.nodes.map((node) => hashArea(node.dataArea)));
        link.join();
        for (const node of cluster.nodes) {
          await node.until('split brain', (_, { connection }) => connection === 'SplitBrain');
        }
        const after = await Promise.all(cluster.nodes.map((node) => hashArea(node.dataArea)));
        assert.deepEqual(after, before, 'a copy was overwritten');
        // Said again, it counts.
        await beta.cli(['connect', 'alpha', '--discard-my-data']);
        await alpha.cli(['connect', 'beta']);
        await cluster.synced();
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),
  ];
}
