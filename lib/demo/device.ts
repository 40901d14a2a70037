/** The volume as the demo's writer sees it: a block device, or an NBD export. */

import { type FileHandle, open } from 'node:fs/promises';
import { NbdClient } from './nbd_client.ts';

export interface Device {
  write(offset: number, data: Buffer): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** `path`: /dev/ublkbN, or the socket of the NBD export `volume`. */
export async function openDevice(path: string, volume: string): Promise<Device> {
  if (!path.startsWith('/dev/')) return NbdClient.connect(path, volume);
  const file = await open(path, 'r+');
  return new BlockDevice(file);
}

class BlockDevice implements Device {
  private readonly file: FileHandle;

  constructor(file: FileHandle) {
    this.file = file;
  }

  async write(offset: number, data: Buffer): Promise<void> {
    let done = 0;
    while (done < data.length) {
      done += (await this.file.write(data, done, data.length - done, offset + done)).bytesWritten;
    }
  }

  async flush(): Promise<void> {
    await this.file.sync();
  }

  async close(): Promise<void> {
    await this.file.close();
  }
}
