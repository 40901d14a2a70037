/** Mutants of what TypeScript decides: who is the source, who may be primary, when I/O goes on after a crash. */
import { DESIGN, type Mutant, PRIOR_ART } from './mutant.ts';

const GENERATIONS = 'lib/replication/generations.ts';
const CONTROL = 'lib/control/volume.ts';
const INQUIRY = 'lib/replication/inquiry.ts';

export const DECIDING: readonly Mutant[] = [
  {
    name: 'equal-generations-in-step',
    rules: ['R7'],
    source: `${PRIOR_ART} (equal generations with bits left taken for 'in sync')`,
    about: 'Equal generations count as in step though chunks are marked.',
    symptom: 'chunks differ, stay marked, and nothing copies them',
    theme: 'errors-in-resync',
    edits: [
      {
        file: GENERATIONS,
        find: 'mine.dirtyChunks > 0 || peer.dirtyChunks > 0',
        replace: 'false',
      },
    ],
  },
  {
    name: 'split-brain-as-resync',
    rules: ['R7', 'R18'],
    source: `${PRIOR_ART} (split brain that status does not show)`,
    about: 'A split brain is decided by the identity of the nodes instead of a person.',
    symptom: 'acknowledged writes are overwritten, and nobody said so',
    theme: 'split-brain',
    edits: [
      {
        file: GENERATIONS,
        find: `decision.kind !== 'splitBrain' || mine.discardMine === peer.discardMine`,
        replace: `decision.kind !== 'splitBrain'`,
      },
      {
        file: GENERATIONS,
        find: `mine.discardMine ? 'target' : 'source'`,
        replace: `mine.discardMine || (!peer.discardMine && !winsTie(mine, peer)) ? 'target' : 'source'`,
      },
    ],
  },
  {
    name: 'resync-the-wrong-way',
    rules: ['R7'],
    source: DESIGN,
    about: 'The copy that has changed since both were in step becomes the target.',
    symptom: 'acknowledged writes are overwritten, or the link is refused for ever',
    edits: [
      {
        file: GENERATIONS,
        within: 'export function decide(',
        find: '...«row.result»',
        replace: `row.rule === 50 ? SOURCE_MAP : row.rule === 70 ? TARGET_MAP : row.result`,
      },
    ],
  },
  {
    name: 'crashed-primary-the-target',
    rules: ['R13', 'R18'],
    source: `${PRIOR_ART} (a live primary must never become the target of a crashed peer)`,
    about:
      'Of two copies with equal generations the one whose node crashed as primary becomes the target.',
    symptom: 'protocol A: flushed writes that only the crashed primary has are overwritten',
    theme: 'fallen-primary',
    edits: [
      {
        file: GENERATIONS,
        find: 'hasCrashed(mine) && (!hasCrashed(peer) || winsTie(mine, peer))',
        replace: 'hasCrashed(peer) && (!hasCrashed(mine) || winsTie(peer, mine))',
      },
    ],
  },
  {
    name: 'inconsistent-source',
    rules: ['R17'],
    source: `${PRIOR_ART} (a bitmap cleared between two Inconsistent nodes)`,
    about: 'Of two Inconsistent copies one becomes the source.',
    symptom: 'a half-done copy ends as UpToDate and is promoted without force',
    edits: [
      {
        file: GENERATIONS,
        find: 'isInconsistent(mine) && isInconsistent(peer)',
        replace: 'false',
      },
    ],
  },
  {
    name: 'both-promote-at-once',
    rules: ['R18'],
    source: DESIGN,
    about: 'A node that is being promoted consents to the promotion of its peer.',
    symptom: 'two nodes that are linked become primary without force',
    theme: 'failovers',
    edits: [
      {
        file: 'lib/replication/promotion.ts',
        within: '#answer(id: number, ownRole: Role)',
        find: 'this.#changing',
        replace: 'false',
      },
    ],
  },
  {
    name: 'disconnect-without-outdating',
    rules: ['R18'],
    source: DESIGN,
    about:
      'A primary that is told to disconnect does not tell its peer that it is going to be outdated.',
    symptom: 'the peer is promoted without force, and acknowledged writes are gone',
    theme: 'failovers',
    edits: [
      {
        file: 'lib/replication/volume.ts',
        within: '#do(action: LinksAction): void',
        find: `this.#role === 'primary'`,
        replace: 'false',
      },
    ],
  },
  {
    name: 'discard-kept-after-promotion',
    rules: ['R18'],
    source: 'a defect that was found here',
    about: 'That this side yields in a split brain is remembered after it was made primary.',
    symptom: 'what was written after the promotion is overwritten, and nobody said so',
    theme: 'split-brain',
    edits: [
      {
        file: 'lib/replication/links.ts',
        within: 'keepMine(): void',
        find: 'for (const entry of this.#entries.values()) entry.discardMine = false;',
        replace: '',
      },
    ],
  },
  {
    name: 'recovery-asks-nobody',
    rules: ['R18'],
    source: DESIGN,
    about: 'A recovered daemon lets I/O go on without asking its peers.',
    symptom: 'I/O goes on although the peer is primary or newer',
    theme: 'failovers',
    edits: [
      {
        file: CONTROL,
        within: 'private async recoverOnce(force: boolean)',
        find: 'await replication.askPeers(this.name, this.config.timeouts.recoveryTimeout)',
        replace: 'null',
      },
    ],
  },
  {
    name: 'recovery-not-suspended',
    rules: ['R18'],
    source: DESIGN,
    about: 'A recovering daemon opens its volume without suspending I/O.',
    symptom: 'I/O goes on before the peers were asked',
    theme: 'failovers',
    edits: [
      {
        file: CONTROL,
        find: 'volumeSpec(this.config, this.context.secret, «mayRecover»)',
        replace: 'false',
      },
    ],
  },
  {
    name: 'recovery-ignores-newer-copy',
    rules: ['R18'],
    source: DESIGN,
    about: 'That the copy of a peer is newer does not speak against going on after a crash.',
    symptom: 'I/O goes on although the peer is newer',
    theme: 'recoveries',
    edits: [
      {
        file: INQUIRY,
        find: 'decision && isBehind',
        replace: 'false',
      },
    ],
  },
  {
    name: 'recovery-ignores-split-brain',
    rules: ['R18'],
    source: DESIGN,
    about: 'A split brain does not speak against going on after a crash.',
    symptom: 'I/O goes on although the copies have both changed',
    theme: 'split-brain',
    edits: [
      {
        file: INQUIRY,
        find: `decision?.kind === 'splitBrain'`,
        replace: 'false',
      },
    ],
  },
];
