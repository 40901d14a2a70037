// Everything that a scenario file needs, in one import.
export { CommandError, type CommandOptions, type CommandResult } from '../command.js';
export { Daemon, type DaemonExit, type DaemonOptions } from './support/daemon.js';
export {
  checkExt4,
  isMounted,
  loopDisk,
  makeExt4,
  modprobe,
  mount,
  ramDisks,
  unmount,
} from './support/disk.js';
export { type Fault, FaultyDisk } from './support/faulty_disk.js';
export { type FioReport, type FioRun, runFio, startFio } from './support/fio.js';
export { FullFilesystem } from './support/full_filesystem.js';
export { type Scenario, ScenarioContext, scenario } from './support/scenario.js';
export { waitFor } from './support/wait.js';
