// One run of the test machine: boots a kernel with ublk under qemu's software emulation, on the host's
// own files (read-only, writes go to memory), runs one script inside and brings back its exit status.
//
// Host and guest share a results directory: the host leaves job.env and job.sh there, the guest
// `status`, `dmesg.log` and whatever the job writes to $TIDEMARK_RESULTS; the host adds console.log. The job's output
// comes through a virtio port, apart from the kernel's console, which is watched for faults.
import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { freemem } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { type KernelFault, kernelFault } from './guest/support/faults.js';
import { provideInitramfs } from './initramfs.js';
import { type Kernel, provideKernel } from './kernel.js';
import { ensurePackages, findCommand } from './packages.js';

export interface MachineImage {
  kernel: Kernel;
  initramfs: string;
}

export interface MachineOptions {
  image: MachineImage;
  /** An existing directory for the files exchanged with the guest. */
  results: string;
  /** The job's working directory; same path inside. */
  checkout: string;
  /** Bash text, run as root with `set -e` off. */
  script: string;
  timeoutMs: number;
  /** The emulator's process has started. */
  onStart?: (pid: number) => void;
  /** A line that the job printed. */
  onOutput?: (line: string) => void;
  /** A line that the kernel or the boot stages printed. */
  onConsole?: (line: string) => void;
  /** Connects the console to this process's terminal. */
  interactive?: boolean;
  signal?: AbortSignal;
  cpus?: number;
  memoryMib?: number;
}

export interface MachineOutcome {
  /** The job's exit status; null if the machine ended before the job did. */
  status: number | null;
  /** Why there is no status. */
  problem: string | undefined;
  faults: KernelFault[];
  bootMs: number | undefined;
  totalMs: number;
}

const kernelParameters = [
  ...['console=ttyS0', 'quiet', 'panic=-1', 'mitigations=off'],
  // Halves the latency of a wake-up.
  'idle=poll',
  // The emulator has one clock for all processors. Without this the kernel doubts that, and patches its scheduler while
  // that runs, which has been seen to end in an int3 trap under emulation.
  'tsc=reliable',
];
const defaultCpus = 2;
const defaultMemoryMib = 6144;
const bootTimeoutMs = 180_000;
const bootAttemptsMax = 5;
/** Where the guest sees the results directory; image/start mounts it there. */
export const guestResults = '/run/tidemark-vm/results';
const upLine = /^tidemark-vm: up after /;
/** The EPYC model has features that the emulator lacks, which is of no interest; the reset is our own. */
const consoleNoise = /TCG doesn't support requested feature|sysrq: Resetting/;

/** Brings the host to where a machine can boot; quick when all is there. */
export async function prepareImage(
  refresh: boolean,
  note: (text: string) => void,
): Promise<MachineImage> {
  await ensurePackages(note);
  const kernel = await provideKernel(refresh, note);
  return { kernel, initramfs: await provideInitramfs(kernel) };
}

/** Runs a machine, another one if it did not get to run the job for a reason of the emulator's. */
export async function bootMachine(
  options: MachineOptions,
  note: (text: string) => void,
): Promise<MachineOutcome> {
  for (let attempt = 1; ; attempt += 1) {
    const outcome = await runMachine(options);
    // A kernel that dies, or mistakes its clock, before anything of ours ran says something of the emulator, and
    // nothing of us.
    const unborn =
      outcome.bootMs === undefined &&
      (outcome.faults.some(({ fatal }) => fatal) || /clock was/.test(outcome.problem ?? ''));
    if (!unborn || attempt === bootAttemptsMax || options.signal?.aborted) return outcome;
    note(`${outcome.problem}: booting again`);
  }
}

export async function runMachine(options: MachineOptions): Promise<MachineOutcome> {
  const environment = {
    TIDEMARK_CHECKOUT: options.checkout,
    TIDEMARK_RESULTS: guestResults,
    TIDEMARK_VM: options.image.kernel.version,
  };
  await writeFile(join(options.results, 'job.env'), exportLines(environment));
  await writeFile(join(options.results, 'job.sh'), options.script);

  const qemu = await findCommand('qemu-system-x86_64');
  const setpriv = await findCommand('setpriv');
  if (!qemu || !setpriv) throw new Error('qemu-system-x86_64 or setpriv not found');
  const started = performance.now();
  // The death signal covers the one end that no handler of ours sees: SIGKILL to this process.
  const child = spawn(setpriv, ['--pdeathsig', 'KILL', qemu, ...qemuArguments(options)], {
    stdio: options.interactive
      ? ['inherit', 'inherit', 'pipe', 'pipe']
      : ['ignore', 'pipe', 'pipe', 'pipe'],
  });
  if (child.pid !== undefined) options.onStart?.(child.pid);
  const watch = new MachineWatch(child, options, started);
  const exit = await watch.ended;

  const status = await readFile(join(options.results, 'status'), 'utf8').then(
    (text) => Number.parseInt(text, 10),
    () => null,
  );
  return {
    status: watch.stopReason ? null : status,
    problem: watch.stopReason ?? (status === null ? watch.describeDeath(exit) : undefined),
    faults: watch.faults,
    bootMs: watch.bootMs,
    totalMs: performance.now() - started,
  };
}

/** Follows one qemu process from its start to its end, and ends it when its time is up. */
class MachineWatch {
  readonly ended: Promise<string>;
  readonly faults: KernelFault[] = [];
  bootMs: number | undefined;
  stopReason: string | undefined;
  private readonly child: ChildProcess;
  private readonly options: MachineOptions;
  private readonly started: number;
  private lastLine = 'nothing on the console';

  constructor(child: ChildProcess, options: MachineOptions, started: number) {
    this.child = child;
    this.options = options;
    this.started = started;
    const boot = setTimeout(() => this.stop(`no boot within ${bootTimeoutMs} ms`), bootTimeoutMs);
    const overall = setTimeout(
      () => this.stop(`not finished after ${options.timeoutMs} ms`),
      options.timeoutMs,
    );
    const abort = () => this.stop('stopped');
    // Covers process.exit() elsewhere in this process.
    const kill = () => child.kill('SIGKILL');
    process.once('exit', kill);
    options.signal?.addEventListener('abort', abort);
    if (options.signal?.aborted) abort();

    const output = child.stdio[3] as Readable;
    output.on('error', () => {}); // A reset when qemu is killed; its exit says the rest.
    const streams = [this.lines(output, (line) => this.onOutput(line, boot))];
    for (const stream of [child.stdout, child.stderr]) {
      if (stream) streams.push(this.lines(stream, (line) => this.onConsole(line)));
    }
    this.ended = new Promise<string>((resolve) => {
      child.on('error', (error) => resolve(error.message));
      child.on('exit', (status, signal) => resolve(signal ?? `status ${status}`));
    })
      .then(async (exit) => {
        await Promise.all(streams);
        return exit;
      })
      .finally(() => {
        clearTimeout(boot);
        clearTimeout(overall);
        process.off('exit', kill);
        options.signal?.removeEventListener('abort', abort);
      });
  }

  private lines(stream: Readable, take: (line: string) => void): Promise<void> {
    const reader = createInterface({ input: stream });
    // The serial console ends lines with CR LF and may carry the firmware's terminal codes.
    // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
    reader.on('line', (line) => take(line.replace(/\x1b\[[0-9;?]*[A-Za-z]|\x1bc|\r/g, '')));
    return new Promise((resolve) => reader.once('close', resolve));
  }

  private onOutput(line: string, boot: NodeJS.Timeout): void {
    if (this.bootMs === undefined && upLine.test(line)) {
      this.bootMs = performance.now() - this.started;
      clearTimeout(boot);
      return;
    }
    this.options.onOutput?.(line);
  }

  private onConsole(line: string): void {
    if (line.trim() === '' || consoleNoise.test(line)) return;
    const fault = kernelFault(line);
    if (fault) this.faults.push(fault);
    this.lastLine = line;
    appendFileSync(join(this.options.results, 'console.log'), `${line}\n`);
    this.options.onConsole?.(line);
  }

  private stop(reason: string): void {
    this.stopReason ??= reason;
    this.child.kill('SIGKILL');
  }

  /** Why the machine may have ended before its job, on one line. */
  describeDeath(exit: string): string {
    const stage = this.bootMs === undefined ? 'before it was up' : 'before the job finished';
    const fatal = this.faults.find((fault) => fault.fatal)?.line;
    return `the machine ended ${stage} (qemu: ${exit}): ${fatal ?? this.lastLine}`;
  }
}

function qemuArguments(options: MachineOptions): string[] {
  const { image } = options;
  const half = Math.floor(freemem() / 2 ** 21);
  const memory = options.memoryMib ?? Math.max(2048, Math.min(defaultMemoryMib, half));
  const readOnly = 'security_model=none,readonly=on,multidevs=remap';
  const share = (tag: string) => ['-device', `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`];
  return [
    // Threads tell what they are, to whoever measures.
    ...['-name', 'tidemark,debug-threads=on'],
    // -cpu max crashes this kernel early under emulation; kvm is not to be counted on.
    ...['-M', 'q35', '-accel', 'tcg,thread=multi', '-cpu', 'EPYC'],
    ...['-smp', String(options.cpus ?? defaultCpus), '-m', String(memory)],
    // With -no-reboot the guest's reset, and with panic=-1 its panic, ends qemu.
    ...['-nodefaults', '-display', 'none', '-nic', 'none', '-no-reboot'],
    ...['-serial', options.interactive ? 'mon:stdio' : 'stdio', '-monitor', 'none'],
    ...['-kernel', image.kernel.image, '-initrd', image.initramfs],
    ...['-append', kernelParameters.join(' ')],
    ...['-fsdev', `local,id=root,path=/,${readOnly}`, ...share('root')],
    ...['-fsdev', `local,id=modules,path=${image.kernel.modules},${readOnly}`, ...share('modules')],
    ...['-fsdev', `local,id=results,path=${options.results},security_model=none`],
    ...share('results'),
    ...['-device', 'virtio-serial-pci', '-chardev', 'socket,id=output,fd=3'],
    ...['-device', 'virtserialport,chardev=output,name=tidemark.output'],
  ];
}

function exportLines(environment: Record<string, string>): string {
  return Object.entries(environment)
    .map(([name, value]) => `export ${name}='${value.replaceAll("'", "'\\''")}'\n`)
    .join('');
}
