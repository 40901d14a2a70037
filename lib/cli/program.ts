/** The verbs of `tidemark`, their options and help. What a verb does is loaded when it is called. */

import { Command, InvalidArgumentError, Option } from 'commander';
import { POLICY, TIMEOUTS } from '../config/limits.ts';
import { formatExactMs, parseUnit } from '../config/units.ts';
import { WAIT_GOALS, WAIT_MEANINGS, type WaitGoal, waitForGoal } from '../control/wait.ts';
import { Context, type GlobalOptions, SYSTEM_CONFIG, VERSION } from './context.ts';
import { EXIT } from './exit.ts';
import { LOG_LEVELS, type LogLevel } from './log_levels.ts';

const WAIT_TIMEOUT_MAX_MS = 7 * 24 * 3_600_000;

/** Seconds, as other commands have it, or with a unit; in ms. */
function timeoutOption(text: string): number {
  const ms = /^\d+(\.\d+)?$/.test(text) ? Math.round(Number(text) * 1000) : parseUnit(text, 'ms');
  if (ms === null || ms > WAIT_TIMEOUT_MAX_MS) {
    throw new InvalidArgumentError(
      `expected seconds, or a duration such as '500ms', '30s', '5min' (0..${formatExactMs(WAIT_TIMEOUT_MAX_MS)})`,
    );
  }
  return ms;
}

const HELP_END = `
Exit status:
  ${EXIT.ok}  done
  ${EXIT.failed}  failed
  ${EXIT.usage}  the command line or the config is wrong
  ${EXIT.notRunning}  no daemon runs for this config and node
  ${EXIT.timeout}  wait: the state was not reached in time

Defaults: peer timeout ${formatExactMs(TIMEOUTS.peerTimeout.default)}, flush interval ${formatExactMs(POLICY.flushInterval.default)}; all of them, and every key of a config, are in docs/CONFIG.md.`;

/**
 * @param finish is told the exit status of a verb that has one of its own.
 */
export function makeProgram(finish: (status: number) => void): Command {
  const program = new Command('tidemark');
  program
    .description('A replicated block device in userspace.')
    .version(VERSION)
    .option(
      '-c, --config <file>',
      `config script (default: ./tidemark.config.ts, then ${SYSTEM_CONFIG})`,
    )
    .option('-n, --node <name>', "which of the config's nodes this machine is (or TIDEMARK_NODE)")
    .option('-v, --volume <name>', 'which volume, when the config has several')
    .option('--debug', 'show the stack of an error')
    .addHelpText('after', HELP_END)
    .showSuggestionAfterError(true)
    .configureHelp({ showGlobalOptions: true });
  const context = () => new Context(program.opts<GlobalOptions>());
  /** A verb that is one request, and says nothing but that it is done. */
  const request = async (method: string, params: Record<string, unknown>, done: string) => {
    const { volume } = await context().call<{ volume: string }>(method, params);
    process.stdout.write(`${volume}: ${done}\n`);
  };

  program
    .command('create')
    .description("write the metadata of this node's copy; refuses a disk that carries something")
    .option(
      '--force',
      'also on a disk that carries something: what lies outside of the metadata stays, as data',
    )
    .option('--json', 'what was done, as JSON')
    .action(async (flags) => (await import('./metadata.ts')).create(context(), flags));

  program
    .command('up')
    .description('run the daemon of this node')
    .option('-d, --detach', 'behind: return when it is up, or say why it is not')
    .option('-p, --primary', 'become primary and serve the device at once')
    .option('--force', 'with --primary: also from a copy that is not known to be good')
    .option('--log <file>', 'append the log, as JSON lines, to this file')
    .addOption(
      new Option('--log-level <level>', 'what is logged').choices(LOG_LEVELS).default('info'),
    )
    .action(async (flags: { logLevel: LogLevel }) => {
      finish(await (await import('./up.ts')).up(context(), flags));
    });

  program
    .command('down')
    .description('stop the daemon; refuses while a device is mounted or open')
    .option('--force', 'stop all the same')
    .action(async (flags: { force?: boolean }) => {
      const client = await context().connect();
      const { pid } = await client.call<{ pid: number }>('down', { force: flags.force === true });
      // The connection ends with the process.
      await client.closed;
      process.stdout.write(`daemon ${pid} is down\n`);
    });

  program
    .command('status')
    .description('role, disk, peers, and how far a resync is')
    .option('--json', 'as JSON (docs/CLI.md)')
    .option('-w, --watch', 'again whenever it changes, until the daemon ends')
    .action(async (flags) => (await import('./status.ts')).status(context(), flags));

  program
    .command('connect')
    .description('connect to a peer (all of them without a name), also after a split brain')
    .argument('[peer]')
    .option(
      '--discard-my-data',
      'in a split brain: this side yields, and takes the data of the peer',
    )
    .action(async (peer: string | undefined, flags: { discardMyData?: boolean }) => {
      const params = { peer, discardMyData: flags.discardMyData === true };
      await request('connect', params, peer === undefined ? 'connecting' : `connecting to ${peer}`);
    });

  program
    .command('disconnect')
    .description('disconnect from a peer (from all of them without a name), and stay so')
    .argument('[peer]')
    .action(async (peer: string | undefined) => {
      await request(
        'disconnect',
        { peer },
        peer === undefined ? 'disconnected' : `disconnected from ${peer}`,
      );
    });

  program
    .command('primary')
    .description('become primary and serve the device')
    .option('--force', 'also from a copy that is not known to be good: its data counts from now on')
    .action(async (flags: { force?: boolean }) => {
      const { volume, device } = await context().call<{ volume: string; device: string | null }>(
        'primary',
        { force: flags.force === true },
      );
      process.stdout.write(`${volume}: Primary, ${device ?? 'no frontend in the config'}\n`);
    });

  program
    .command('secondary')
    .description('take the device away and become secondary; refuses while it is mounted or open')
    .option('--force', 'all the same: what its users have not written yet fails')
    .action((flags: { force?: boolean }) =>
      request('secondary', { force: flags.force === true }, 'Secondary'),
    );

  program
    .command('resume')
    .description("let I/O go on that an error of the disk suspended (on-io-error 'suspend')")
    .action(() => request('resume', {}, 'resumed'));

  program
    .command('invalidate')
    .description("this node's data is worth nothing: copy all of it from the peer")
    .option('--peer <name>', 'which peer, when there are several')
    .action((flags: { peer?: string }) =>
      request('invalidate', { peer: flags.peer }, 'invalidated'),
    );

  program
    .command('wait')
    .description('wait until the volume (all of them, without --volume) is in a state')
    .addOption(
      new Option(
        '--for <state>',
        WAIT_GOALS.map((goal) => `${goal}: ${WAIT_MEANINGS[goal]}`).join('; '),
      )
        .choices(WAIT_GOALS)
        .default('connected'),
    )
    .option(
      '--timeout <time>',
      'seconds, or a duration such as 500ms (default: for ever)',
      timeoutOption,
    )
    .action(async (flags: { for: WaitGoal; timeout?: number }) => {
      const client = await context().connect();
      try {
        await waitForGoal(client, flags.for, context().options.volume, flags.timeout ?? null);
      } finally {
        client.close();
      }
    });

  program
    .command('dump-md')
    .description("print the metadata of this node's copy, also a damaged one")
    .option('--json', 'as JSON')
    .action(async (flags) => (await import('./metadata.ts')).dumpMetadata(context(), flags));

  program
    .command('features')
    .description('what this kernel offers, and what is missing for the rest')
    .option('--json', 'as JSON')
    .action(async (flags) => (await import('./metadata.ts')).features(flags));

  program
    .command('demo')
    .description('two daemons, a cut link, and a resync of what changed, on this machine')
    .option('--json', 'the summary as JSON')
    .addOption(
      new Option('--frontend <kind>', 'default: ublk where the kernel has it').choices([
        'ublk',
        'nbd',
      ]),
    )
    .action(async (flags) => finish(await (await import('../demo/main.ts')).runDemo(flags)));

  return program;
}
