/** Mutants of the resync: R9, and the exchange of maps. */
import { DESIGN, type Edit, type Mutant, PRIOR_ART } from './mutant.ts';

const RESYNC_CC = 'csrc/core/resync.cc';
const LINK = 'csrc/core/link.cc';
const SENDING = 'csrc/core/sending.cc';

const CLEARED_WHEN_SENT: Edit = {
  file: RESYNC_CC,
  within: 'void VolumeImpl::task_send(SyncTask* task)',
  find: 'link.sync_chunks_sent += link_map()->outward(task->range).count;',
  replace: `link.sync_chunks_sent += link_map()->outward(task->range).count;
    link_map()->clear(task->range);`,
};
const NO_OTHER_PASS: Edit = {
  file: RESYNC_CC,
  within: 'void VolumeImpl::pump_resync()',
  find: 'link.cursor == 0 || !link.tasks.empty()',
  replace: 'true',
};
/** What keeps a resync from ending. */
const unfinishedWhile = (replace: string): Edit => ({
  file: RESYNC_CC,
  within: 'void VolumeImpl::check_finished()',
  find: 'link_map()->count() != 0 || !link.tasks.empty() || link.resync_in_log != 0',
  replace,
});

export const RESYNC: readonly Mutant[] = [
  {
    name: 'target-map-ignored',
    rules: ['R9'],
    source: DESIGN,
    about: "The source does not add the target's marks to its own.",
    symptom: 'what the target alone had written stays there after the resync',
    edits: [
      {
        file: RESYNC_CC,
        within: 'VolumeImpl::Handled VolumeImpl::receive_map(',
        find: 'apply_runs(payload, header.offset, map)',
        replace: `apply_runs(payload, header.offset,
          std::make_unique<DirtyMap>(map->size_bytes(), map->chunk_bytes()).get())`,
      },
    ],
  },
  {
    name: 'clear-when-written',
    rules: ['R9'],
    source: DESIGN,
    about:
      'The source clears a bit when the target has written the chunk, before it is durable there.',
    symptom: 'the target loses power: the chunk differs without a mark',
    edits: [
      {
        file: SENDING,
        within: 'void VolumeImpl::acknowledge_written(',
        find: 'if (entry->resync || entry->owner == nullptr) continue;',
        replace: `if (entry->resync && entry->owner != nullptr &&
              !static_cast<SyncTask*>(entry->owner)->voided) {
            link_map()->clear(entry->range);
          }
          if (entry->resync || entry->owner == nullptr) { continue; }`,
      },
    ],
  },
  {
    name: 'clear-when-sent',
    rules: ['R9'],
    source: DESIGN,
    about: 'The source clears a bit when the chunk was sent.',
    symptom: 'the link breaks: the chunk differs without a mark',
    edits: [CLEARED_WHEN_SENT],
  },
  {
    name: 'void-ignored',
    rules: ['R9'],
    source: `${PRIOR_ART} (clearing a bit while a newer write to the chunk is out)`,
    about: 'A mark that is set while a chunk is being copied does not keep its bit.',
    symptom: 'the chunk of a failed write differs without a mark',
    theme: 'errors-in-resync',
    edits: [
      {
        file: RESYNC_CC,
        within: 'void VolumeImpl::task_durable(',
        find: '!task->voided',
        replace: 'true',
      },
    ],
  },
  {
    name: 'failed-write-unmarked',
    rules: ['R9'],
    source: `${PRIOR_ART} (out of sync unless both the network and the local disk said OK)`,
    about: 'A local write that failed does not mark its chunks.',
    symptom: 'the peer has what failed here: the chunk differs without a mark',
    theme: 'errors-in-resync',
    edits: [
      {
        file: 'csrc/core/disk_fault.cc',
        within: 'void VolumeImpl::local_write_failed(',
        find: 'if (tracked(slot)) mark_range(slot, write->aligned);',
        replace: '',
      },
    ],
  },
  {
    name: 'finish-with-marks-left',
    rules: ['R9', 'R17'],
    source: `${PRIOR_ART} (a resync declared finished with marks still queued)`,
    about:
      'A resync ends although chunks were marked behind its cursor, or while its end was being announced.',
    symptom: 'the copies are called in step, and chunks are marked and differ',
    theme: 'errors-in-resync',
    edits: [
      unfinishedWhile('!link.tasks.empty() || link.resync_in_log != 0'),
      NO_OTHER_PASS,
      {
        file: RESYNC_CC,
        within: 'void VolumeImpl::announce_generation()',
        find: 'link.state == Connection::kSyncSource && link_map()->count() != 0',
        replace: 'false',
      },
      {
        file: RESYNC_CC,
        within: 'VolumeImpl::Handled VolumeImpl::receive_sync_done_ack(',
        find: 'link_map()->count() != 0',
        replace: 'false',
      },
    ],
  },
  {
    name: 'finish-with-writes-queued',
    rules: ['R17', 'R9'],
    source: `${PRIOR_ART} (a resync declared finished with marks still queued)`,
    about:
      'The source clears bits and offers its generation while the last resync writes are not durable at the target.',
    symptom: 'the target loses power as an UpToDate copy: chunks differ without a mark',
    edits: [CLEARED_WHEN_SENT, unfinishedWhile('link_map()->count() != 0')],
  },
  {
    name: 'rescan-forgotten',
    rules: ['R9'],
    source: `${PRIOR_ART} (resyncs stuck at 97 %)`,
    about: 'Chunks that were marked behind the cursor of a resync are not looked for again.',
    symptom: 'the resync does not end',
    theme: 'errors-in-resync',
    edits: [NO_OTHER_PASS],
  },
  {
    name: 'target-not-inconsistent',
    rules: ['R17'],
    source: DESIGN,
    about:
      'The target of a resync is not called Inconsistent while it is a mixture of old and new.',
    symptom:
      'an interrupted target is promoted without force, and acknowledged writes are gone from it',
    edits: [
      {
        file: LINK,
        within: 'void VolumeImpl::link_prepare(',
        find: 'sb().flags &= ~kNodeConsistent;',
        replace: '',
      },
    ],
  },
  {
    name: 'target-inconsistent-in-ram-only',
    rules: ['R17'],
    source: DESIGN,
    about: 'The first resync writes land before it is durable that the target is Inconsistent.',
    symptom: 'the target crashes and comes back as a whole copy, which it is not',
    edits: [
      {
        file: LINK,
        within: 'void VolumeImpl::link_prepare(',
        find: 'if (commit) { meta.commit(ready); } else { ready(true); }',
        replace: 'ready(true);',
      },
    ],
  },
  {
    name: 'generation-taken-at-start',
    rules: ['R17'],
    source: DESIGN,
    about:
      "The target takes the source's generation over when a resync begins, not when it has ended.",
    symptom:
      'an interrupted target is promoted without force, and acknowledged writes are gone from it',
    edits: [
      {
        file: LINK,
        within: 'void VolumeImpl::link_prepare(',
        find: 'sb().current = params.peer_bitmap;',
        replace:
          'sb().current = params.peer_current; sb().flags |= kNodeConsistent | kNodeWasUpToDate;',
      },
    ],
  },
  {
    name: 'offer-not-written-down',
    rules: ['R7'],
    source: 'a defect that was found here',
    about:
      'A generation that is made while the end of a resync is being written down is offered without being in doubt on the disk.',
    symptom: 'the answer gets lost: writes apart complete under a generation that the peer has',
    theme: 'third-node',
    edits: [
      {
        file: RESYNC_CC,
        within: 'void VolumeImpl::announce_generation() {',
        find: 'if («sb().current != offered») {',
        replace: 'false',
      },
      {
        file: RESYNC_CC,
        find: 'link.announced = offered;',
        replace: 'link.announced = sb().current;',
      },
    ],
  },
];
