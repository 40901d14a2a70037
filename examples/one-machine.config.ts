// Both nodes on one machine, in files, over NBD: for trying things out, without root. Say which node with --node.
import { defineVolume } from 'tidemark';

export default defineVolume({
  name: 'try',
  nodes: {
    alpha: {
      backing: 'alpha.img',
      address: '127.0.0.1:7790',
      frontend: { kind: 'nbd', socket: 'alpha.sock' },
    },
    beta: {
      backing: 'beta.img',
      address: '127.0.0.1:7791',
      frontend: { kind: 'nbd', socket: 'beta.sock' },
    },
  },
  timeouts: { retryMin: '100ms', retryMax: '1s' },
});
