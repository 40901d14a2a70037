// One volume on two machines, as /dev/ublkb0 on whichever of them is primary. The same file lies on both; each
// knows itself by its host name.
import { defineVolume } from 'tidemark';

export default defineVolume({
  name: 'r0',
  protocol: 'C',
  secret: { file: '/etc/tidemark/r0.secret' },
  nodes: {
    alpha: {
      backing: '/dev/vg/r0',
      address: '10.0.0.1:7790',
      frontend: { kind: 'ublk', id: 0 },
    },
    beta: {
      backing: '/dev/vg/r0',
      address: '10.0.0.2:7790',
      frontend: { kind: 'ublk', id: 0 },
    },
  },
});
