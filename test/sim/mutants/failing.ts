/** Mutants of disks that fail: on-io-error 'detach' and 'suspend'. */
import { DESIGN, type Mutant } from './mutant.ts';

const DISK_FAULT = 'csrc/core/disk_fault.cc';
const WRITES = 'csrc/core/writes.cc';
const SENDING = 'csrc/core/sending.cc';

export const FAILING: readonly Mutant[] = [
  {
    name: 'detached-reads-failed-disk',
    rules: ['R7'],
    source: DESIGN,
    about: 'A node that let go of its disk still answers reads from it.',
    symptom: 'a read gives what was there before the disk failed',
    theme: 'disk-policies',
    edits: [
      {
        file: 'csrc/core/remote.cc',
        within: 'void VolumeImpl::read_data(Io* io)',
        find: 'detaching() || diskless()',
        replace: 'detaching()',
      },
    ],
  },
  {
    name: 'detach-makes-no-generation',
    rules: ['R7'],
    source: DESIGN,
    about: 'The copy that remains when the primary lets go of its disk takes no new generation.',
    symptom: 'nothing tells which of the two disks is the newer one',
    theme: 'disk-policies',
    edits: [
      {
        file: DISK_FAULT,
        within: 'VolumeImpl::Handled VolumeImpl::receive_detach(',
        find: 'link.slot, «header.offset»);',
        replace: 'sb().current',
      },
      {
        file: 'csrc/core/receiver.cc',
        find: '!detaching() || header.offset != fault.generation',
        replace: '!detaching()',
      },
    ],
  },
  {
    name: 'detached-disk-unmarked',
    rules: ['R7', 'R8'],
    source: DESIGN,
    about: 'The copy that remains keeps no marks for the disk that was let go of.',
    symptom: 'the disk comes back and is not given what it missed',
    theme: 'disk-policies',
    edits: [
      {
        file: WRITES,
        within: 'void VolumeImpl::mark_absent(ByteRange range)',
        find: 'slot == link.slot && !link.peer_detached',
        replace: 'slot == link.slot',
      },
    ],
  },
  {
    name: 'detach-before-peer-is-durable',
    rules: ['R7', 'R10'],
    source: DESIGN,
    about:
      'A primary lets go of its disk without a barrier: what came before is only in the cache of its peer.',
    symptom: 'the peer loses power: what was written, and flushed here, is nowhere any more',
    theme: 'disk-policies',
    edits: [
      {
        file: DISK_FAULT,
        within: 'void VolumeImpl::begin_detach()',
        find: 'close_epoch(true);',
        replace: '',
      },
      {
        file: DISK_FAULT,
        within: 'VolumeImpl::Handled VolumeImpl::receive_detach(',
        find: '!link.epochs.empty()',
        replace: 'false',
      },
    ],
  },
  {
    name: 'detached-write-in-peers-cache',
    rules: ['R11'],
    source: DESIGN,
    about:
      'Without a disk of its own a primary completes writes that are only in the cache of its peer.',
    symptom: 'the peer loses power, and takes away what was read and written here',
    theme: 'disk-policies',
    edits: [
      {
        file: SENDING,
        within: 'void VolumeImpl::append_sent(Write* write)',
        find: 'wait && !diskless()',
        replace: 'wait',
      },
    ],
  },
  {
    name: 'suspend-completes-failed-request',
    rules: [],
    source: DESIGN,
    about: 'A request whose error suspends I/O completes well instead of waiting.',
    symptom: 'a write that has failed is acknowledged, and a read gives what was in the buffer',
    theme: 'disk-policies',
    edits: [
      {
        file: DISK_FAULT,
        within: 'bool VolumeImpl::hold_failed(Request* request)',
        find: 'suspended_requests.push_back(request);',
        replace: 'complete_now(request, 0);',
      },
    ],
  },
  {
    name: 'suspend-passes-errors-on',
    rules: [],
    source: DESIGN,
    about: 'A request whose error suspends I/O fails all the same.',
    symptom: 'the application sees an error that a person had a way out of',
    theme: 'disk-policies',
    edits: [
      {
        file: DISK_FAULT,
        within: 'bool VolumeImpl::hold_failed(Request* request)',
        find: 'limits.on_io_error != OnIoError::kSuspend',
        replace: 'true',
      },
    ],
  },
  {
    name: 'suspended-io-resumes-itself',
    rules: [],
    source: DESIGN,
    about:
      'I/O that an error of the disk suspended goes on with the next sweep, though nobody said so.',
    symptom: 'requests meet the disk that has failed before anybody has decided',
    theme: 'disk-policies',
    edits: [
      {
        file: 'csrc/core/volume.cc',
        within: 'void VolumeImpl::sweep()',
        find: 'if (fault.unrecorded && !stopped && !diskless()) record_fault();',
        replace: `if (fault.unrecorded && !stopped && !diskless()) record_fault();
        if (limits.on_io_error == OnIoError::kSuspend && role == Role::kPrimary) { resume(); }`,
      },
    ],
  },
  {
    name: 'detach-abandoned-fails-nothing',
    rules: ['R7', 'R9'],
    source: DESIGN,
    about:
      'A write that failed here while the disk was being let go of completes well though the disk is kept.',
    symptom: 'an acknowledged write is on no disk of the primary',
    theme: 'disk-policies',
    edits: [
      {
        file: WRITES,
        within: 'void VolumeImpl::finish(Write* write)',
        find: 'if (result == 0) result = write->swallowed;',
        replace: '',
      },
    ],
  },
];
