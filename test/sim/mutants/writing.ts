/** Mutants of the path of a write: R1 to R6. */
import { DESIGN, type Mutant, PRIOR_ART } from './mutant.ts';

const METADATA_WRITER = 'csrc/core/metadata_writer.cc';
const WRITES = 'csrc/core/writes.cc';
const RANGE_LOCK = 'csrc/core/range_lock.cc';
const DIRTY_MAP = 'csrc/core/dirty_map.cc';
const SENDING = 'csrc/core/sending.cc';

export const WRITING: readonly Mutant[] = [
  {
    name: 'data-before-log',
    rules: ['R1'],
    source: DESIGN,
    about:
      'Writes go to the disk and the peer while the log block that makes their extents hot is still under way.',
    symptom: 'after a crash chunks differ whose extents no log names',
    edits: [
      {
        file: METADATA_WRITER,
        within: 'void MetadataWriter::write_log_block()',
        find: 'host_.submit(&log_io_);',
        replace: `host_.submit(&log_io_);
          log_->transaction_done(true);
          if (log_changed_) log_changed_(true);`,
      },
      {
        file: METADATA_WRITER,
        within: 'void MetadataWriter::log_written(int error)',
        find: 'log_->transaction_done(error == 0);',
        replace: 'if (log_->transaction_in_flight()) { log_->transaction_done(error == 0); }',
      },
    ],
  },
  {
    name: 'log-names-first-extent-only',
    rules: ['R1'],
    source: DESIGN,
    about: 'A write that crosses an extent puts only its first extent into the log.',
    symptom: 'after a crash chunks behind the boundary differ, and no log names their extent',
    edits: [
      {
        file: WRITES,
        within: 'void VolumeImpl::extents_of(',
        find: '*last = static_cast<uint32_t>((range.end() - 1) / extent_bytes());',
        replace: '*last = *first;',
      },
    ],
  },
  {
    name: 'log-write-without-fua',
    rules: ['R2'],
    source: DESIGN,
    about: 'A log block counts as durable when it is only in the volatile cache.',
    symptom: 'after a power cut chunks differ whose extents no log names',
    edits: [
      {
        file: METADATA_WRITER,
        within: 'void MetadataWriter::write_log_block()',
        find: 'log_io_.flags = kIoFua;',
        replace: 'log_io_.flags = 0;',
      },
    ],
  },
  {
    name: 'evict-without-map',
    rules: ['R2', 'R3'],
    source: DESIGN,
    about:
      'An extent is evicted without writing its map blocks and without flushing the backing disk.',
    symptom: 'marks of an evicted extent are lost with the RAM',
    edits: [
      {
        file: METADATA_WRITER,
        within: 'void MetadataWriter::poll_log()',
        find: '!marks_wait && !job.flush_data',
        replace: 'true',
      },
    ],
  },
  {
    name: 'evict-without-backing-flush',
    rules: ['R3', 'R2'],
    source: DESIGN,
    about:
      'An extent is evicted while its last writes are in the volatile cache of the backing disk.',
    symptom: 'a power cut takes writes back that the peer has, and nothing names them',
    edits: [
      {
        file: METADATA_WRITER,
        within: 'void MetadataWriter::poll_log()',
        find: 'job.flush_data = !transaction_->settled;',
        replace: 'job.flush_data = false;',
      },
    ],
  },
  {
    name: 'flush-settles-what-it-missed',
    rules: ['R3', 'R2'],
    source: DESIGN,
    about:
      'A flush of the backing disk counts for the evictions of what was written while it was under way, too.',
    symptom: 'a power cut takes writes back that the peer has, and nothing names them',
    theme: 'log-thrash',
    edits: [
      {
        file: METADATA_WRITER,
        within: 'void MetadataWriter::settle()',
        find: 'writer->settled(std::exchange(writer->settles_, 0));',
        replace: 'writer->settled(writer->log_->settle_begins());',
      },
      {
        file: METADATA_WRITER,
        within: 'void MetadataWriter::flush_job()',
        find: 'writer->settled(std::exchange(writer->job_settles_, 0));',
        replace: 'writer->settled(writer->log_->settle_begins());',
      },
    ],
  },
  {
    name: 'evict-with-map-in-cache',
    rules: ['R2'],
    source: DESIGN,
    about:
      'External metadata: the map blocks of an evicted extent are written but not flushed before the log block.',
    symptom: 'a power cut of the metadata disk loses marks of an evicted extent',
    edits: [
      {
        file: METADATA_WRITER,
        within: 'void MetadataWriter::flush_job()',
        find: '!shares_device_ && !job_.blocks.empty()',
        replace: 'false',
      },
    ],
  },
  {
    name: 'mark-during-map-write-lost',
    rules: ['R2'],
    source: `${PRIOR_ART} (ublkpp: a clean transition racing a new mark)`,
    about:
      'A mark that is set while its map block is on its way to the disk counts as written with it.',
    symptom:
      'the block is not written again when the extent is evicted: the mark is lost with the RAM',
    edits: [
      {
        file: DIRTY_MAP,
        within: 'void DirtyMap::end_write(uint64_t block, bool ok)',
        find: 'writing_.clear(block);',
        replace: `writing_.clear(block);
          stale_.clear(block);
          stale_set_.clear(block);`,
      },
    ],
  },
  {
    name: 'extent-let-go-when-written',
    rules: ['R3'],
    source: `${PRIOR_ART} (DRBD: an extent is let go after the barrier acknowledgement)`,
    about:
      'An extent may be evicted when the peer has only written its writes, before they are durable there.',
    symptom: 'both nodes lose power: what the peer had in its cache differs, and no log names it',
    edits: [
      {
        file: SENDING,
        within: 'void VolumeImpl::acknowledge_written(',
        find: 'entry->acknowledged = true;',
        replace: `entry->acknowledged = true;
          if (!entry->resync) {
            uint32_t first = 0;
            uint32_t last = 0;
            extents_of(entry->range, &first, &last);
            log->release(first, last, ActivityLog::Hold::kPeer);
            log_retry = true;
          }`,
      },
      {
        file: SENDING,
        within: 'void VolumeImpl::release_peer(',
        find: 'if (!entry.in_log) return;',
        replace: 'if (!entry.in_log || entry.acknowledged) return;',
      },
    ],
  },
  {
    name: 'set-inward',
    rules: ['R4'],
    source: DESIGN,
    about: 'Marks are rounded inward: a chunk that was written in part stays clean.',
    symptom: 'a chunk differs without a mark',
    edits: [
      {
        file: DIRTY_MAP,
        find: 'mark_chunks(outward(range))',
        replace: 'mark_chunks(inward(range))',
      },
    ],
  },
  {
    name: 'clear-outward',
    rules: ['R4', 'R9'],
    source: DESIGN,
    about: 'The target of a resync clears a chunk of which only a part has arrived.',
    symptom: 'the link or the source goes before the rest: the chunk differs without a mark',
    theme: 'yielding',
    edits: [
      {
        file: 'csrc/core/resync.cc',
        within: 'void VolumeImpl::target_durable(',
        find: 'map->inward({begin, end - begin})',
        replace: 'map->outward({begin, end - begin})',
      },
    ],
  },
  {
    name: 'last-chunk-never-whole',
    rules: ['R4'],
    source: DESIGN,
    about: "The device's last, shorter chunk never counts as whole, so that nothing clears it.",
    symptom: 'a resync does not end',
    edits: [
      {
        file: DIRTY_MAP,
        within: 'ChunkRange DirtyMap::inward(ByteRange range) const',
        find: 'range.length >= size_bytes_ - range.offset',
        replace: 'false',
      },
    ],
  },
  {
    name: 'overlapping-writes-together',
    rules: ['R5'],
    source: DESIGN,
    about: 'Two writes that overlap are in flight together on one disk.',
    symptom: 'the copies apply them in different orders and differ without a mark',
    edits: [
      {
        file: RANGE_LOCK,
        within: 'bool conflict(const RangeLock& a, bool exclusive)',
        find: 'a.exclusive || exclusive',
        replace: 'a.exclusive != exclusive',
      },
    ],
  },
  {
    name: 'peer-overlaps-together',
    rules: ['R5'],
    source: DESIGN,
    about: 'The peer has overlapping writes in flight together, and applies them in any order.',
    symptom: 'the copies differ without a mark',
    edits: [
      {
        file: WRITES,
        within: 'void VolumeImpl::begin(Write* write)',
        find: 'write->lock.exclusive = true;',
        replace: 'write->lock.exclusive = write->origin == Origin::kApplication;',
      },
    ],
  },
  {
    name: 'resync-read-unlocked',
    rules: ['R5', 'R9'],
    source: `${PRIOR_ART} (clearing a bit while a newer write to the chunk is out)`,
    about:
      'A resync reads a chunk while an application write to it is under way, and sends what was there before.',
    symptom: 'the old content overtakes the write at the peer, and the bit is cleared',
    edits: [
      {
        file: RANGE_LOCK,
        within: 'bool conflict(const RangeLock& a, bool exclusive)',
        find: 'a.exclusive || exclusive',
        replace: 'a.exclusive && exclusive',
      },
    ],
  },
  {
    name: 'discard-in-part-at-peer',
    rules: ['R6'],
    source: DESIGN,
    about: 'The peer discards only the first sector of what was discarded.',
    symptom: 'old data stay at the peer, without a mark',
    edits: [
      {
        file: 'csrc/core/receiver.cc',
        within: 'VolumeImpl::Handled VolumeImpl::receive_write(',
        find: 'write->range = {header.offset, header.length};',
        replace: `write->range = {header.offset,
          header.type == FrameType::kDiscard ? kSectorSize : header.length};`,
      },
    ],
  },
  {
    name: 'discard-leaves-its-edges',
    rules: ['R6'],
    source: DESIGN,
    about: 'Where a discard covers a block of the disk in part, that part keeps its old content.',
    symptom: 'what was discarded does not read as zeroes',
    theme: 'unaligned',
    edits: [
      {
        file: WRITES,
        within: 'void VolumeImpl::modify_piece(Write* write)',
        find: 'std::memset(into, 0, write->piece.length);',
        replace: 'if (write->kind != IoKind::kDiscard) std::memset(into, 0, write->piece.length);',
      },
    ],
  },
  {
    name: 'completion-lost',
    rules: [],
    source: 'DESIGN: any request reaches exactly one completion, on every error path',
    about: 'A write whose read-modify-write cannot read is forgotten.',
    symptom: 'a request never completes',
    theme: 'unaligned',
    edits: [
      {
        file: WRITES,
        within: 'void VolumeImpl::modify_piece(Write* write)',
        find: 'next_piece(write); return;',
        replace: 'return;',
      },
    ],
  },
  {
    name: 'completion-doubled',
    rules: [],
    source: 'DESIGN: any request reaches exactly one completion, on every error path',
    about:
      'A write that waits for the peer with several pieces is settled once for each when the link breaks.',
    symptom: 'a request completes twice',
    edits: [
      {
        file: SENDING,
        within: 'void VolumeImpl::forget_transfer_log()',
        find: 'if (--write->acks_pending == 0) acknowledged.push_back(write);',
        replace: '--write->acks_pending; acknowledged.push_back(write);',
      },
      {
        file: WRITES,
        within: 'void VolumeImpl::settle(Write* write)',
        find: '!write->local_done || write->ended || write->acks_pending != 0 || write->epoch_wait != 0',
        replace: '!write->local_done || write->acks_pending != 0 || write->epoch_wait != 0',
      },
    ],
  },
];
