// What create refuses, and the places where metadata may be.
import { strict as assert } from 'node:assert';
import { open } from 'node:fs/promises';
import { type Scenario, type ScenarioContext, scenario } from '../vm/guest/support.ts';
import { assertStatusJson } from './checks.ts';
import { Cluster, type MetadataKind } from './cluster.ts';
import { hashArea } from './disks.ts';
import { Ledger } from './ledger.ts';
import type { Place } from './place.ts';

/** What a disk may carry, how it gets there, and how the refusal names it. */
const SIGNATURES: ReadonlyArray<{
  what: string;
  make: (t: ScenarioContext, disk: string, bytes: number) => Promise<unknown>;
  named: RegExp;
}> = [
  {
    what: 'an ext4 filesystem',
    make: (t, disk) => t.run(['/sbin/mkfs.ext4', '-q', '-F', disk], { timeoutMs: 120_000 }),
    named: /ext[24]/,
  },
  {
    what: 'a swap area',
    make: (t, disk) => t.run(['/sbin/mkswap', '-f', disk]),
    named: /swap/,
  },
  {
    what: 'a GPT',
    make: (_t, disk) => patch(disk, 512, Buffer.from('EFI PART\0\0\x01\0', 'latin1')),
    named: /GPT/,
  },
  {
    what: 'a GPT of which only the copy at the end is left',
    make: (_t, disk, bytes) =>
      patch(disk, bytes - 512, Buffer.from('EFI PART\0\0\x01\0', 'latin1')),
    named: /GPT/,
  },
  {
    what: 'an MBR',
    make: (_t, disk) => {
      const sector = Buffer.alloc(512);
      // One Linux partition from sector 2048 on.
      Buffer.from('002021008320210000080000', 'hex').copy(sector, 446);
      sector.writeUInt32LE(8192, 446 + 12);
      sector.writeUInt16LE(0xaa55, 510);
      return patch(disk, 0, sector);
    },
    named: /MBR/,
  },
];

export function diskScenarios(place: Place): Scenario[] {
  const { kind } = place;
  return [
    scenario(
      `${kind}: create refuses a disk that carries something, names it, and writes nothing`,
      async (t) => {
        const cluster = await Cluster.prepare(t, place);
        const { alpha } = cluster;
        const disk = alpha.paths.backing;
        const refused = async (what: string, named: RegExp) => {
          const before = await hashDisk(place, disk);
          const { status, stderr } = await alpha.cli(['create'], { anyStatus: true });
          assert.equal(status, 1, `${what}: ${stderr}`);
          assert.match(stderr, named, what);
          assert.match(stderr, /--force/, what);
          assert.ok(stderr.includes(disk), `${what}: ${stderr}`);
          assert.equal(await hashDisk(place, disk), before, `${what} was changed`);
        };
        for (const { what, make, named } of SIGNATURES) {
          await wipe(t, place, disk);
          await make(t, disk, place.backingBytes);
          await refused(what, named);
        }
        await wipe(t, place, disk);
        await alpha.cli(['create']);
        await refused('Tidemark metadata', /Tidemark/);
        await alpha.cli(['create', '--force']);
        await alpha.up('--primary', '--force');
        const device = await alpha.open();
        await new Ledger(device.sizeBytes).write(device, 0, 4);
        await device.close();
        await alpha.stop();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: create refuses the disk of a running daemon, and up refuses one without metadata`,
      async (t) => {
        const cluster = await Cluster.prepare(t, place);
        const { alpha, beta } = cluster;
        const missing = await alpha.cli(['up'], { anyStatus: true });
        assert.equal(missing.status, 1, missing.stderr);
        assert.match(missing.stderr, /create/);
        await alpha.create();
        await alpha.up();
        for (const words of [['create'], ['create', '--force']]) {
          const { status, stderr } = await alpha.cli(words, { anyStatus: true });
          assert.equal(status, 1, stderr);
          assert.match(stderr, /lock|use|run/i);
        }
        const twice = await alpha.cli(['up'], { anyStatus: true });
        assert.equal(twice.status, 1, twice.stderr);
        assert.match(twice.stderr, /running/);
        await alpha.status();
        const none = await beta.cli(['status'], { anyStatus: true });
        assert.equal(none.status, 3, none.stderr);
        await alpha.stop();
      },
      { timeoutMs: place.scenarioMs },
    ),

    ...(['internal-start', 'offset', 'external'] as const).map((metadata) =>
      scenario(
        `${kind}: metadata '${metadata}' works through writes, a cut, a crash and a resync`,
        (t) => cycle(t, place, metadata),
        { timeoutMs: place.scenarioMs * 1.5 },
      ),
    ),
  ];
}

async function cycle(t: ScenarioContext, place: Place, metadata: MetadataKind): Promise<void> {
  const cluster = await Cluster.form(t, place, { metadata });
  const { alpha, beta, link } = cluster;
  const device = await alpha.open();
  const ledger = new Ledger(device.sizeBytes);
  await ledger.scatter(device, 0, ledger.blocks, place.blocks);
  await ledger.write(device, 0);
  await device.flush();
  link.cut();
  await alpha.unlinked();
  const last = ledger.blocks - 1;
  await ledger.write(device, last);
  await ledger.scatter(device, 0, ledger.blocks - 1, 30);
  await device.flush();
  assert.equal((await assertStatusJson(alpha)).peers[0]!.dirty_chunks, 31);
  await beta.kill();
  await alpha.kill();
  await Promise.all([alpha.up(), beta.up()]);
  if (place.kind === 'NBD') await alpha.cli(['primary']);
  await alpha.until('primary', ({ role, suspended }) => role === 'Primary' && !suspended);
  link.join();
  await cluster.synced();
  const again = place.kind === 'NBD' ? await alpha.open() : device;
  await ledger.verify(again, 'the device');
  await cluster.assertSameData();
  await cluster.down();
  await cluster.assertSameData();
  const dump = JSON.stringify(await alpha.dump());
  assert.match(dump, /"placement"/);
}

async function patch(disk: string, offset: number, data: Uint8Array): Promise<void> {
  const file = await open(disk, 'r+');
  try {
    await file.write(data, 0, data.length, offset);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function wipe(t: ScenarioContext, place: Place, disk: string): Promise<void> {
  const mib = 1 << 20;
  const count = `count=${place.backingBytes / mib}`;
  await t.run(['dd', 'if=/dev/zero', `of=${disk}`, 'bs=1M', count, 'conv=notrunc,fsync']);
}

function hashDisk(place: Place, disk: string): Promise<string> {
  return hashArea({ path: disk, offset: 0, bytes: place.backingBytes });
}
