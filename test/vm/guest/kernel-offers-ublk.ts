// The driver's side of what the ublk frontend relies on, before Tidemark comes into it.
import { strict as assert } from 'node:assert';
import { statSync } from 'node:fs';
import { release } from 'node:os';
import { modprobe, scenario } from './support.js';

export default scenario('the kernel offers the ublk control device', async (t) => {
  await modprobe(t, 'ublk_drv');
  assert.ok(statSync('/dev/ublk-control').isCharacterDevice());
  // User recovery with reissue came with 6.1's driver, ioctl-encoded commands with 6.4's.
  const [major = 0, minor = 0] = release().split('.').map(Number);
  assert.ok(major > 6 || (major === 6 && minor >= 12), `Linux ${release()} is older than 6.12`);
});
