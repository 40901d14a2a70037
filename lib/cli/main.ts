#!/usr/bin/env node
/** The command `tidemark`. */

import { type Command, CommanderError } from 'commander';
import { TidemarkError } from '../binding/errors.ts';
import { EXIT, errorText, exitStatus } from './exit.ts';
import { makeProgram } from './program.ts';

function usageText(error: CommanderError): string {
  return error.message.replace(/^error: /, '').trim();
}

/** Commander's own complaints come as exceptions, and are told as all errors are. */
function throwInsteadOfExit(command: Command): void {
  command.exitOverride();
  command.configureOutput({ writeErr: () => undefined });
  for (const child of command.commands) throwInsteadOfExit(child);
}

async function main(argv: readonly string[]): Promise<number> {
  let status: number = EXIT.ok;
  const program = makeProgram((value) => {
    status = value;
  });
  throwInsteadOfExit(program);
  if (argv.length <= 2) {
    program.outputHelp();
    return EXIT.usage;
  }
  try {
    await program.parseAsync(argv);
    return status;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return EXIT.ok;
    const told =
      error instanceof CommanderError
        ? new TidemarkError('USAGE', `${usageText(error)}; see 'tidemark help'`, { cause: error })
        : error;
    process.stderr.write(errorText(told, program.opts().debug === true));
    return exitStatus(told);
  }
}

// A reader that went away ('tidemark status | head') is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(EXIT.ok);
  throw error;
});

const status = await main(process.argv);
// What was printed must be out first: standard output may be a pipe.
process.stdout.write('', () => process.exit(status));
