// What a kernel says when it is broken. Used by the host on the console and by the guest on its own
// log, where a fault can be laid at the door of the scenario that ran.

export interface KernelFault {
  line: string;
  /** The machine cannot be trusted afterwards; other faults concern the tasks they name. */
  fatal: boolean;
}

const fatalPattern =
  /Kernel panic|\bOops\b|general protection fault|kernel BUG at|BUG: (?!soft lockup)|Unable to handle/;
// Stalls under software emulation on a busy host are no fault of what is tested, so rcu stalls and
// soft lockups are not here; a task blocked for minutes is.
const faultPattern = /blocked for more than \d+ seconds|WARNING: CPU|Out of memory: Killed/;

export function kernelFault(line: string): KernelFault | undefined {
  if (fatalPattern.test(line)) return { line, fatal: true };
  if (faultPattern.test(line)) return { line, fatal: false };
  return undefined;
}
