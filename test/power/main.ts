// Replays recordings that a run in the virtual machine kept (test/vm/main.ts --keep DIRECTORY):
//
//   node --import tsx test/power/main.ts DIRECTORY/logs [ENTRY:SEED]
//
// With ENTRY:SEED, as a failure prints them, the power is cut at that point alone.
import { parsePoint } from './points.ts';
import { findRecordings } from './recording.ts';
import { replayLine } from './report.ts';

const [directory, point] = process.argv.slice(2);
if (directory === undefined) {
  process.stderr.write('usage: node --import tsx test/power/main.ts DIRECTORY [ENTRY:SEED]\n');
  process.exit(2);
}
const recordings = findRecordings(directory);
let failed = recordings.length === 0 ? 1 : 0;
if (failed > 0) process.stderr.write(`no recordings in ${directory}\n`);
for (const recording of recordings) {
  const line = await replayLine(recording, point === undefined ? {} : { only: parsePoint(point) });
  process.stdout.write(`${line.ok ? 'ok' : 'not ok'} - ${line.text}\n`);
  if (!line.ok) failed += 1;
}
process.stdout.write(`${recordings.length - failed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;
