/** What `import ... from 'tidemark'` is inside a config script. */

export { TidemarkError } from '../binding/errors.ts';
export { defineConfig, defineVolume } from './define.ts';
export type {
  AsyncWindow,
  AsyncWindowFacts,
  FlushIntervalFacts,
  PeerFacts,
  Policies,
  SelectPeersFacts,
  VolumeFacts,
} from './policies.ts';
export type {
  Config,
  ConfigProtocol,
  Duration,
  Frontend,
  Metadata,
  NbdFrontend,
  Secret,
  Size,
  Timeouts,
  UblkFrontend,
  Volume,
  VolumeNode,
} from './types.ts';
