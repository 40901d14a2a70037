/** `tidemark up`: runs the daemon, here or behind. */

import { spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Logger } from 'pino';
import { TidemarkError } from '../binding/errors.ts';
import { Daemon } from '../control/daemon.ts';
import { runFolder } from '../control/run_folder.ts';
import { daemonName, socketPath } from '../control/socket_claim.ts';
import { writeSocketNote } from '../control/socket_note.ts';
import type { StatusJson } from '../control/status.ts';
import { ScriptHost } from '../policy/script_host.ts';
import { type Context, VERSION } from './context.ts';
import { EXIT, errorText, exitStatus } from './exit.ts';
import { openLog, openLogFile } from './log.ts';
import type { LogLevel } from './log_levels.ts';
import { volumeLine } from './status_text.ts';

export interface UpOptions {
  detach?: boolean;
  primary?: boolean;
  force?: boolean;
  log?: string;
  logLevel: LogLevel;
}

/** In the environment of the process behind: it tells its parent how it went, over the IPC channel. */
const BEHIND = 'TIDEMARK_BEHIND';

type Word = { kind: 'up'; status: StatusJson } | { kind: 'failed'; code: string; message: string };

function tellParent(word: Word): Promise<void> {
  return new Promise((done) => {
    if (!process.send) {
      done();
      return;
    }
    process.send(word, undefined, undefined, () => {
      process.disconnect?.();
      done();
    });
  });
}

function report(status: StatusJson, write: (line: string) => void): void {
  for (const volume of status.volumes) write(`${volumeLine(volume)}\n`);
}

/** A clean stop that takes longer than this is told about. */
const STOP_TOLD_MS = 10_000;

/** The first signal stops cleanly, though by force when the device is in use; the second ends at once. */
function handleSignals(daemon: Daemon, log: Logger): void {
  let signals = 0;
  const onSignal = async (signal: NodeJS.Signals) => {
    signals += 1;
    if (signals > 1) {
      log.warn(
        `${signal} again: ending at once; what is not stopped yet is left to the next daemon`,
      );
      process.exit(EXIT.failed);
    }
    log.info(`${signal}: stopping`);
    setTimeout(() => {
      log.warn(
        `still stopping after ${STOP_TOLD_MS / 1000} s; another signal ends the daemon at once, as if it were killed`,
      );
    }, STOP_TOLD_MS).unref();
    try {
      await daemon.stop(false);
    } catch (error) {
      log.warn(`${(error as Error).message}; stopping by force`);
      await daemon.stop(true).catch((failure: Error) => {
        log.fatal(`not stopped: ${failure.message}`);
        process.exit(EXIT.failed);
      });
    }
  };
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    process.on(signal, () => void onSignal(signal));
  }
}

/** Runs the daemon in this process; returns its exit status. */
export async function up(context: Context, options: UpOptions): Promise<number> {
  if (options.detach) return upBehind(context, options);
  const behind = process.env[BEHIND] === '1';
  try {
    return await run(context, options, behind);
  } catch (error) {
    if (behind) {
      const code = error instanceof TidemarkError ? error.code : 'INTERNAL';
      await tellParent({ kind: 'failed', code, message: (error as Error).message });
    }
    throw error;
  }
}

async function run(context: Context, options: UpOptions, behind: boolean): Promise<number> {
  const log = openLog(options.logLevel, options.log);
  const scripts = await ScriptHost.load({
    path: context.configPath,
    node: context.node,
    onOutput: (text) => log.info({ script: true }, text.trimEnd()),
    onProblem: (message) => log.warn(message),
  });
  let daemon: Daemon;
  let removeNote: () => void = () => undefined;
  try {
    const { config } = scripts;
    const volumes = context.chosenVolumes(config);
    const socket = socketPath(config);
    daemon = new Daemon({
      version: VERSION,
      node: config.node,
      name: daemonName(config),
      runFolder: runFolder(),
      socketPath: socket,
      volumes,
      scripts,
      startReplication: async () => (await import('../replication/client.ts')).startReplication(),
      primary: options.primary === true,
      force: options.force === true,
      onListening: () => {
        removeNote = writeSocketNote(config.path, context.node?.name, socket);
      },
      log,
    });
  } catch (error) {
    await scripts.close();
    throw error;
  }
  // Whoever breaks in here leaves its devices to the next daemon, as a kill does.
  const broken = (error: unknown) => {
    log.fatal(`broken: ${error instanceof Error ? error.stack : String(error)}`);
    process.exit(EXIT.failed);
  };
  process.on('uncaughtException', broken);
  process.on('unhandledRejection', broken);
  handleSignals(daemon, log);
  try {
    await daemon.start();
    const status = await daemon.status();
    report(status, (line) => log.info(line.trimEnd()));
    if (behind) await tellParent({ kind: 'up', status });
    const end = await daemon.ended;
    if (end !== null) throw end;
    log.info('stopped');
    return EXIT.ok;
  } catch (error) {
    // Standard error hears it from whoever catches it.
    if (options.log !== undefined) {
      log.fatal({ code: (error as TidemarkError).code }, (error as Error).message);
    }
    throw error;
  } finally {
    removeNote();
  }
}

/** Starts the same command behind, and returns when it is up, or says why it is not. */
async function upBehind(context: Context, options: UpOptions): Promise<number> {
  // Found here, so that the mistakes that people make are told without a log.
  const config = await context.loadConfig();
  context.chosenVolumes(config);
  socketPath(config);
  const file = resolve(options.log ?? join(runFolder(), `${daemonName(config)}.log`));
  const fd = openLogFile(file);
  const args = process.argv.slice(2).filter((arg) => arg !== '--detach' && arg !== '-d');
  if (options.log === undefined) args.push('--log', file);
  const child = spawn(process.execPath, [...process.execArgv, process.argv[1]!, ...args], {
    detached: true,
    stdio: ['ignore', fd, fd, 'ipc'],
    env: { ...process.env, [BEHIND]: '1' },
  });
  closeSync(fd);
  const interrupt = () => {
    child.kill('SIGTERM');
    process.exit(EXIT.failed);
  };
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  const word = await new Promise<Word>((done) => {
    const failed = (message: string) => done({ kind: 'failed', code: 'DAEMON', message });
    child.once('message', (message) => done(message as Word));
    child.once('error', (error) => failed(`the daemon could not be started: ${error.message}`));
    child.once('exit', (code, signal) => {
      failed(`the daemon ended (${signal ?? `exit status ${code}`}) before it was up; see ${file}`);
    });
  });
  child.removeAllListeners('exit');
  if (child.connected) child.disconnect();
  child.unref();
  if (word.kind === 'failed') {
    const error = new TidemarkError(word.code, word.message);
    process.stderr.write(errorText(error, false));
    return exitStatus(error);
  }
  report(word.status, (line) => process.stdout.write(line));
  process.stdout.write(`daemon ${word.status.pid} runs behind, its log is ${file}\n`);
  return EXIT.ok;
}
