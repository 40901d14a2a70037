// Two volumes of one daemon: a database that must not lose a write, and a scratch area that must not wait for one.
import { defineConfig, type Volume } from 'tidemark';

const ADDRESS = { alpha: '10.0.0.1', beta: '10.0.0.2' };

function volume(name: string, port: number, id: number, more: Partial<Volume>): Volume {
  const node = (host: string) => ({
    backing: `/dev/vg/${name}`,
    // Metadata on a faster disk; the whole backing disk is data then.
    metadata: { file: `/dev/nvme-vg/${name}-md` },
    address: `${host}:${port}`,
    frontend: { kind: 'ublk' as const, id },
  });
  return {
    name,
    secret: { env: 'TIDEMARK_SECRET' },
    nodes: { alpha: node(ADDRESS.alpha), beta: node(ADDRESS.beta) },
    ...more,
  };
}

export default defineConfig({
  // 'alpha.rack1.example.org' is node alpha.
  node: ({ hostname }) => hostname.split('.')[0] ?? hostname,
  volumes: [
    volume('database', 7790, 0, { protocol: 'C' }),
    volume('scratch', 7791, 1, { protocol: 'A', chunkBytes: '64KiB' }),
  ],
});
