/** Mutants of being apart: R7 and R8. */
import { DESIGN, type Mutant, PRIOR_ART } from './mutant.ts';

const ROLES = 'csrc/core/roles.cc';
const LINK = 'csrc/core/link.cc';
const SENDING = 'csrc/core/sending.cc';
const WRITES = 'csrc/core/writes.cc';

export const APART: readonly Mutant[] = [
  {
    name: 'gate-skipped',
    rules: ['R7'],
    source: `${PRIOR_ART} (ublkpp: acknowledged while the superblock write is still out)`,
    about: 'A write apart completes while the new generation is still on its way to the disk.',
    symptom:
      'after a crash the generation is gone, and the copy of a peer that was promoted wins over what was acknowledged',
    edits: [
      {
        file: ROLES,
        within: 'bool VolumeImpl::gate_open()',
        find: 'return gate_commits == 0 && !offered;',
        replace: 'return true;',
      },
    ],
  },
  {
    name: 'generation-in-ram-only',
    rules: ['R7'],
    source: DESIGN,
    about: 'The generation that is made apart is not written.',
    symptom:
      'after a crash the generation is gone, and the copy of a peer that was promoted wins over what was acknowledged',
    edits: [
      {
        file: ROLES,
        within: 'bool VolumeImpl::make_generation(',
        find: 'meta.commit(std::move(done));',
        replace: 'done(true);',
      },
    ],
  },
  {
    name: 'no-generation-apart',
    rules: ['R7'],
    source: DESIGN,
    about: 'Writes apart complete under the generation that the peer shares.',
    symptom:
      'the peer is promoted and written: a split brain looks like a plain resync, and acknowledged writes are overwritten',
    edits: [
      {
        file: ROLES,
        within: 'void VolumeImpl::ensure_apart_generation()',
        find: 'if (!needed) return;',
        replace: 'return;',
      },
    ],
  },
  {
    name: 'acked-though-superblock-failed',
    rules: ['R7'],
    source: `${PRIOR_ART} (ublkpp: acknowledged while the superblock write had failed)`,
    about:
      'A write completes well though the metadata that had to say that the copies are apart could not be written.',
    symptom:
      'after a crash the generation is gone, and the copy of a peer that was promoted wins over what was acknowledged',
    theme: 'bad-disks',
    edits: [
      {
        file: WRITES,
        within: 'void VolumeImpl::finish(Write* write)',
        find: 'if (result == 0 && meta.failed()) result = -EIO;',
        replace: '',
      },
    ],
  },
  {
    name: 'transfer-log-forgotten',
    rules: ['R7'],
    source: DESIGN,
    about: 'What was sent and not yet durable at the peer is not marked when the link breaks.',
    symptom: 'chunks differ without a mark',
    edits: [
      {
        file: SENDING,
        within: 'void VolumeImpl::forget_transfer_log()',
        find: 'mark_range(link.slot, entry->range);',
        replace: '',
      },
    ],
  },
  {
    name: 'sync-ending-forgotten',
    rules: ['R7'],
    source: `${PRIOR_ART} (the end of a resync that only one side saw)`,
    about:
      'The source does not remember that it has offered its generation: the peer may share it.',
    symptom: 'the link breaks before the answer, both are written: the split brain is not seen',
    theme: 'crash-in-resync',
    edits: [
      {
        file: 'csrc/core/resync.cc',
        within: 'void VolumeImpl::announce_generation()',
        find: 'peer_slot(link.slot).flags |= kSlotSyncEnding;',
        replace: '',
      },
    ],
  },
  {
    name: 'writes-apart-unmarked',
    rules: ['R8'],
    source: DESIGN,
    about: 'A write while the link is down is not marked for the peer that was linked last.',
    symptom: 'chunks differ without a mark when their extents leave the log',
    edits: [
      {
        file: WRITES,
        within: 'void VolumeImpl::dispatch(Write* write)',
        find: 'if (application && !link_active()) mark_range(link.slot, write->aligned);',
        replace: '',
      },
    ],
  },
  {
    name: 'third-slot-forgotten',
    rules: ['R8'],
    source: `${PRIOR_ART} (only configured peers' slots marked)`,
    about: 'While one peer is linked, writes are not marked for another one that is absent.',
    symptom: 'the absent peer comes back and is not given what it missed',
    theme: 'third-node',
    edits: [
      {
        file: WRITES,
        within: 'void VolumeImpl::mark_absent(ByteRange range)',
        find: '(sb().slots[slot].flags & kSlotInUse) != 0 && !follows',
        replace: '(sb().slots[slot].flags & kSlotInUse) != 0 && !follows && !link_active()',
      },
    ],
  },
  {
    name: 'third-slot-shares-generation',
    rules: ['R7', 'R8'],
    source: DESIGN,
    about: 'A write that one peer gets makes no new generation for another one that is absent.',
    symptom: 'the absent peer comes back with an equal generation and counts as in step, or wins',
    theme: 'third-node',
    edits: [
      {
        file: ROLES,
        within: 'void VolumeImpl::ensure_apart_generation()',
        find: 'if (receiving(slot)) continue;',
        replace: 'if (link_active()) continue;',
      },
    ],
  },
  {
    name: 'new-primary-shares-generation',
    rules: ['R7'],
    source: 'a defect that was found here',
    about: 'A new primary whose peer is linked goes on in the generation that it found.',
    symptom:
      'a third node, that it has never met, shares that one with the peer, comes back after a crash, and wins',
    theme: 'unmet-pairs',
    edits: [
      {
        file: ROLES,
        within: 'void VolumeImpl::ensure_apart_generation()',
        find: 'needed = needed || newly_primary;',
        replace: '',
      },
    ],
  },
  {
    name: 'new-peer-over-unflushed-cache',
    rules: ['R1', 'R3'],
    source: 'a defect that was found here',
    about:
      'What a primary sent may be only in the cache here when another node is met, or given it in a resync.',
    symptom: 'the power goes when both are in step: they differ, and nothing says so',
    theme: 'unmet-pairs',
    edits: [
      {
        file: LINK,
        within: 'void VolumeImpl::link_prepare(',
        find: 'flush = tracks_anybody();',
        replace: '',
      },
      {
        file: LINK,
        within: 'void VolumeImpl::link_prepare(',
        find: 'flush = flush || (passes_on && !diskless());',
        replace: 'static_cast<void>(passes_on);',
      },
    ],
  },
  {
    name: 'secondary-marks-nobody',
    rules: ['R8'],
    source: DESIGN,
    about: 'A secondary does not mark what it applies for the third node, which does not get it.',
    symptom: 'the secondary is promoted, and the third node is not given what it missed',
    theme: 'third-node',
    edits: [
      {
        file: WRITES,
        within: 'void VolumeImpl::dispatch(Write* write)',
        find: 'mark_absent(write->aligned);',
        replace: 'if (application) mark_absent(write->aligned);',
      },
    ],
  },
  {
    name: 'window-ignored',
    rules: ['R8'],
    source: DESIGN,
    about: 'Protocol A: a write completes however much is on its way to the peer.',
    symptom: 'more is lost with a primary than its policy says',
    theme: 'flush-storm',
    edits: [
      {
        file: SENDING,
        find: 'protocol == Protocol::kC || window_full || diskless()',
        replace: 'protocol == Protocol::kC || diskless()',
      },
    ],
  },
  {
    name: 'peer-writes-without-log',
    rules: ['R1', 'R8'],
    source: `${PRIOR_ART} (a flag that the log is needed was dropped)`,
    about:
      "A secondary writes what its peer sends without the log, though a third node's copy differs then.",
    symptom: 'after its crash nothing says what the third node lacks',
    theme: 'third-node',
    edits: [
      {
        file: WRITES,
        within: 'bool VolumeImpl::use_log(const Write* write) const {',
        find: 'if («!follows && (sb().slots[slot].flags & kSlotInUse) != 0») return true;',
        replace: 'false',
      },
    ],
  },
];
