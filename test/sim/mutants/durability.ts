/** Mutants of epochs, barriers and flushes: R10 and R11. */
import { DESIGN, type Mutant, PRIOR_ART } from './mutant.ts';

const RECEIVER = 'csrc/core/receiver.cc';
const LINK = 'csrc/core/link.cc';
const SENDING = 'csrc/core/sending.cc';
const WRITES = 'csrc/core/writes.cc';

export const DURABILITY: readonly Mutant[] = [
  {
    name: 'epoch-acked-before-writes',
    rules: ['R10'],
    source: DESIGN,
    about: 'The peer acknowledges an epoch whose writes have not all completed.',
    symptom: 'the peer loses power: chunks differ without a mark',
    edits: [
      {
        file: RECEIVER,
        within: 'void VolumeImpl::pump_epochs()',
        find: '!epoch.closed || epoch.finished != epoch.started || epoch.failed',
        replace: '!epoch.closed || epoch.failed',
      },
    ],
  },
  {
    name: 'epoch-acked-over-held-write',
    rules: ['R10'],
    source: `${PRIOR_ART} (an epoch acknowledged while a conflicting write was held back)`,
    about:
      'Writes that wait behind an overlapping one do not count when the peer acknowledges their epoch.',
    symptom: 'the peer loses power: chunks differ without a mark',
    edits: [
      {
        file: RECEIVER,
        within: 'void VolumeImpl::pump_epochs()',
        find: '!epoch.closed || epoch.finished != epoch.started || epoch.failed',
        replace:
          '!epoch.closed || epoch.finished + locks.waiting() < epoch.started || epoch.failed',
      },
    ],
  },
  {
    name: 'epoch-acked-without-flush',
    rules: ['R10'],
    source: DESIGN,
    about:
      'The peer acknowledges an epoch whose writes are only in the volatile cache of its disk.',
    symptom: 'the peer loses power: chunks differ without a mark',
    edits: [
      {
        file: RECEIVER,
        within: 'void VolumeImpl::pump_epochs()',
        find: 'host.submit(&link.epoch_flush_io);',
        replace: 'epoch_flushed();',
      },
    ],
  },
  {
    name: 'epoch-flush-begun-early',
    rules: ['R10'],
    source: DESIGN,
    about: 'The flush that acknowledges an epoch may have begun before its writes completed.',
    symptom: 'the peer loses power: chunks differ without a mark',
    edits: [
      {
        file: RECEIVER,
        within: 'void VolumeImpl::epoch_flushed()',
        find: `if (broken()) return;`,
        replace: `if (broken()) return;
        for (const ReceivedEpoch& epoch : link.epochs) {
          if (!epoch.closed || epoch.finished != epoch.started || epoch.failed) { break; }
          link.epoch_flush_upto = epoch.number;
        }`,
      },
    ],
  },
  {
    name: 'hard-barrier-not-waited-for',
    rules: ['R10'],
    source: DESIGN,
    about:
      'The peer goes on with writes behind an ordering barrier before those ahead of it are durable.',
    symptom:
      'protocol A, both lose power: the peer has a write behind a flush, and not one ahead of it',
    theme: 'flush-storm',
    edits: [
      {
        file: RECEIVER,
        within: 'VolumeImpl::Handled VolumeImpl::receive_barrier(',
        find: 'if (link.epochs.back().hard) link.hard_wait = true;',
        replace: '',
      },
    ],
  },
  {
    name: 'flush-sends-no-barrier',
    rules: ['R10', 'R11'],
    source: DESIGN,
    about: 'A flush closes its epoch without an ordering barrier.',
    symptom:
      'protocol A, both lose power: the peer has a write behind a flush, and not one ahead of it',
    theme: 'flush-storm',
    edits: [
      {
        file: SENDING,
        within: 'void VolumeImpl::append_sent(Write* write)',
        find: 'close_epoch(true)',
        replace: 'close_epoch(false)',
      },
    ],
  },
  {
    name: 'flush-does-not-wait-for-peer',
    rules: ['R11'],
    source: DESIGN,
    about: "Protocol C: a flush completes when this disk has it, and does not wait for the peer's.",
    symptom: 'the peer loses power and is promoted: a flushed write is gone',
    edits: [
      {
        file: SENDING,
        within: 'void VolumeImpl::append_sent(Write* write)',
        find: `if (protocol == Protocol::kC || diskless()) {
          write->epoch_wait = epoch;
          epoch_wait.push_back(write);
        }
        return;`,
        replace: 'return;',
      },
    ],
  },
  {
    name: 'write-does-not-wait-for-peer',
    rules: ['R11'],
    source: DESIGN,
    about: 'Protocol C: a write completes when this disk has it.',
    symptom: 'the peer is promoted: an acknowledged write is gone',
    edits: [
      {
        file: SENDING,
        within: 'void VolumeImpl::append_sent(Write* write)',
        find: 'protocol == Protocol::kC || window_full',
        replace: 'window_full',
      },
    ],
  },
  {
    name: 'fua-not-durable',
    rules: ['R11'],
    source: DESIGN,
    about: 'A FUA write is an ordinary one on the disk.',
    symptom: 'a power cut takes back a write that was told to be durable',
    edits: [
      {
        file: WRITES,
        within: 'void VolumeImpl::dispatch(Write* write)',
        find: 'write->fua && write->piece_kind == IoKind::kWrite ? kIoFua : 0',
        replace: '0',
      },
    ],
  },
  {
    name: 'zeroes-with-fua-not-flushed',
    rules: ['R11', 'R6'],
    source: DESIGN,
    about: 'Write-zeroes with FUA is not followed by the flush that makes it durable.',
    symptom: 'a power cut brings back what was durably zeroed',
    theme: 'zeroes',
    edits: [
      {
        file: WRITES,
        within: 'void VolumeImpl::next_piece(Write* write)',
        find: 'write->fua && write->kind != IoKind::kWrite && write->error == 0 && !diskless() && write->io.kind != IoKind::kFlush',
        replace: 'false',
      },
    ],
  },
  {
    name: 'failed-flush-forgiven',
    rules: ['R11'],
    source: DESIGN,
    about:
      'After a flush that failed the disk goes on as if nothing had happened, and the next flush succeeds.',
    symptom: 'a power cut takes back writes from before a flush that succeeded',
    theme: 'bad-disks',
    edits: [
      {
        file: 'csrc/core/disk_fault.cc',
        within: 'void VolumeImpl::flush_failed(',
        find: 'meta.give_up(); disk_fault(Fault::kFlush, std::string(whose) + " failed: " + std::strerror(-error));',
        replace:
          'emit(EventKind::kIoError, std::string(whose) + " failed: " + std::strerror(-error));',
      },
    ],
  },
  {
    name: 'failed-flush-empties-the-log',
    rules: ['R3', 'R11'],
    source: DESIGN,
    about:
      'After a flush that failed extents go on leaving the log on the strength of a later flush.',
    symptom: 'what the disk forgot differs from the peer, and no log names it',
    theme: 'bad-disks',
    edits: [
      {
        file: 'csrc/core/disk_fault.cc',
        within: 'void VolumeImpl::flush_failed(',
        find: 'meta.give_up();',
        replace: '',
      },
    ],
  },
  {
    name: 'silent-peer-never-given-up',
    rules: [],
    source: `${PRIOR_ART} (daemons whose restart hangs the machine)`,
    about: 'A peer of which nothing is heard keeps its link for ever.',
    symptom: 'requests that wait for it never complete',
    theme: 'stalls',
    edits: [
      {
        file: LINK,
        within: 'void VolumeImpl::poll_link()',
        find: 'now_us - link.heard_us > limits.peer_timeout_us',
        replace: 'false',
      },
      {
        file: LINK,
        within: 'void VolumeImpl::poll_link()',
        find: 'now_us - link.progress_us > kStallTimeouts * limits.peer_timeout_us',
        replace: 'false',
      },
    ],
  },
];
