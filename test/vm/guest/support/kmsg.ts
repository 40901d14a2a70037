// Reads the kernel's log from where the last reading ended.
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { type KernelFault, kernelFault } from './faults.js';

export class KernelLog {
  private readonly fd = openSync('/dev/kmsg', constants.O_RDONLY | constants.O_NONBLOCK);
  private readonly record = Buffer.alloc(8192);

  /** The lines that are new. */
  read(): string[] {
    const lines: string[] = [];
    for (;;) {
      try {
        const size = readSync(this.fd, this.record, 0, this.record.length, null);
        // 'priority,sequence,time,flags;text', then lines of key=value.
        const record = this.record.toString('utf8', 0, size);
        lines.push(record.slice(record.indexOf(';') + 1, record.indexOf('\n')));
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code === 'EAGAIN') return lines;
        if (code !== 'EPIPE') throw error; // EPIPE: old records were overwritten; go on with the next.
      }
    }
  }

  faults(): KernelFault[] {
    return this.read()
      .map(kernelFault)
      .filter((fault) => fault !== undefined);
  }

  close(): void {
    closeSync(this.fd);
  }
}
