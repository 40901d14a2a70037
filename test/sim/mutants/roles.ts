/** Mutants of links and roles in the core: R16 and R18. */
import { DESIGN, type Mutant, PRIOR_ART } from './mutant.ts';

const ROLES_CC = 'csrc/core/roles.cc';
const LINK = 'csrc/core/link.cc';
const RECEIVER = 'csrc/core/receiver.cc';
const IDLE = 'link.writes_out != 0 || link.epoch_flushing || link.target_finishing';

export const ROLES: readonly Mutant[] = [
  {
    name: 'stale-bytes-accepted',
    rules: ['R16'],
    source: DESIGN,
    about:
      'Bytes of an old link are sent over the new one, and their incarnation is not looked at.',
    symptom: 'links that break again and again, or acknowledgements for what was never sent',
    edits: [
      {
        file: RECEIVER,
        within: 'size_t VolumeImpl::link_input(',
        find: 'header.incarnation != link.params.incarnation',
        replace: 'false',
      },
      {
        file: 'lib/replication/native_link.ts',
        find: 'this.#native.resetLinkBytes();',
        replace: '',
      },
    ],
  },
  {
    name: 'idle-before-writes-end',
    rules: ['R16'],
    source: DESIGN,
    about: 'A new handshake is answered while writes of the old link are still under way.',
    symptom: 'the new link counts writes that are not its own, and takes no more',
    theme: 'stalls',
    edits: [
      {
        file: LINK,
        within: 'void VolumeImpl::link_check_idle()',
        find: IDLE,
        replace: 'link.epoch_flushing || link.target_finishing',
      },
    ],
  },
  {
    name: 'old-writes-count-for-new-link',
    rules: ['R16', 'R10'],
    source: `${DESIGN}; late acknowledgements of an old link`,
    about: 'Writes of an old link that end during a new one count for the epochs of the new one.',
    symptom:
      'an epoch is acknowledged early, and the peer loses power: chunks differ without a mark',
    theme: 'stalls',
    edits: [
      {
        file: LINK,
        within: 'void VolumeImpl::link_check_idle()',
        find: IDLE,
        replace: 'link.epoch_flushing || link.target_finishing',
      },
      {
        file: RECEIVER,
        within: 'void VolumeImpl::received_write_done(Write* write)',
        find: '--link.writes_out;',
        replace: 'if (link.writes_out > 0) { --link.writes_out; }',
      },
      {
        file: RECEIVER,
        within: 'void VolumeImpl::received_write_done(Write* write)',
        find: 'write->link_serial == link.serial',
        replace: 'true',
      },
    ],
  },
  {
    name: 'promote-without-force',
    rules: ['R18', 'R17'],
    source: DESIGN,
    about: 'An Outdated or Inconsistent copy becomes primary without force.',
    symptom: 'acknowledged writes are gone, and nobody said so',
    edits: [
      {
        file: ROLES_CC,
        within: 'void VolumeImpl::promote(bool force, Done done)',
        find: 'disk != DiskState::kUpToDate && !force',
        replace: 'false',
      },
    ],
  },
  {
    name: 'outdated-not-recorded',
    rules: ['R18'],
    source: DESIGN,
    about: 'A peer that is told that it is going to be outdated says yes and forgets it.',
    symptom: 'it is promoted without force, and acknowledged writes are gone',
    theme: 'failovers',
    edits: [
      {
        file: RECEIVER,
        find: 'sb().flags |= kNodeOutdated;',
        replace: '',
      },
    ],
  },
  {
    name: 'demote-without-draining',
    rules: ['R18'],
    source: DESIGN,
    about: 'A demotion ends the link instead of waiting until the peer is durable.',
    symptom: 'protocol A: the peer is promoted without force, and acknowledged writes are gone',
    theme: 'failovers',
    edits: [
      {
        file: ROLES_CC,
        within: 'void VolumeImpl::drain_peer(Done done)',
        find: 'close_epoch(true); drains.push_back({transfer.next_sequence(), std::move(done)});',
        replace: 'link_stop("not drained"); done(0, "");',
      },
    ],
  },
  {
    name: 'crashed-primary-forgotten',
    rules: ['R18', 'R13'],
    source: `${PRIOR_ART} (DRBD keeps the flag of a crashed primary)`,
    about: 'Nobody remembers that a primary has crashed, or who was primary last.',
    symptom:
      'equal generations with chunks marked: the two never come together, or the wrong one wins',
    theme: 'failovers',
    edits: [
      {
        file: 'csrc/core/attach.cc',
        find: 'sb.flags |= kNodeCrashedPrimary;',
        replace: '',
      },
      {
        file: LINK,
        find: 'if (params.peer_role == Role::kPrimary) peer.flags |= kSlotPeerPrimary;',
        replace: '',
      },
      {
        file: LINK,
        find: 'peer_slot(link.slot).flags |= kSlotPeerPrimary;',
        replace: '',
      },
    ],
  },
  {
    name: 'source-not-remembered',
    rules: ['R13'],
    source: 'a defect that was found here',
    about: 'The target of a resync does not note whose content it has.',
    symptom:
      'it crashes before its marks are cleared on the disk: equal generations, and nobody knows which copy counts',
    theme: 'yielding',
    edits: [
      {
        file: 'csrc/core/resync.cc',
        within: 'VolumeImpl::Handled VolumeImpl::receive_sync_done(',
        find: 'if (target) peer.flags |= kSlotPeerPrimary;',
        replace: '',
      },
    ],
  },
  {
    name: 'steps-down-without-generation',
    rules: ['R7', 'R18'],
    source: 'a defect that was found here',
    about:
      'What was on its way when the link broke gets no generation of its own when the primary steps down.',
    symptom: 'the peer is promoted with what it has, and overwrites what had completed here',
    theme: 'yielding',
    edits: [{ file: ROLES_CC, find: 'if («!left_behind») {', replace: 'true' }],
  },
  {
    name: 'suspended-requests-go-on',
    rules: ['R18'],
    source: DESIGN,
    about: 'Requests are taken while I/O is suspended.',
    symptom: 'a recovered daemon completes I/O before it has asked its peers',
    theme: 'failovers',
    edits: [
      {
        file: 'csrc/core/volume.cc',
        within: 'void VolumeImpl::submit(Request* request)',
        find: 'suspended && !stopped',
        replace: 'false',
      },
    ],
  },
];
