#include "core/metadata_writer.h"

#include <cstring>
#include <string>
#include <utility>

#include "core/check.h"
#include "core/log_block.h"
#include "core/map_block.h"

namespace tidemark {

namespace {

std::span<uint8_t, kBlockSize> as_block(uint8_t* buffer) {
  return std::span<uint8_t, kBlockSize>(buffer, kBlockSize);
}

}  // namespace

MetadataWriter::MetadataWriter(Parts parts)
    : host_(parts.host),
      superblock_(parts.superblock),
      layout_(parts.layout),
      maps_(parts.maps),
      shares_device_(parts.shares_device),
      metadata_id_(parts.superblock.short_id()) {
  superblock_buffer_ = host_.buffer_get(kBlockSize);
  log_buffer_ = host_.buffer_get(kBlockSize);
  check(superblock_buffer_ != nullptr && log_buffer_ != nullptr, "no buffers for metadata");
  for (MapWrite& write : map_writes_) {
    write.writer = this;
    write.buffer = host_.buffer_get(kBlockSize);
    check(write.buffer != nullptr, "no buffers for metadata");
  }
}

MetadataWriter::~MetadataWriter() {
  host_.buffer_put(superblock_buffer_, kBlockSize);
  host_.buffer_put(log_buffer_, kBlockSize);
  for (MapWrite& write : map_writes_) host_.buffer_put(write.buffer, kBlockSize);
}

bool MetadataWriter::idle() const {
  return !committing_ && !job_active_ && jobs_.empty() && log_phase_ == LogPhase::kIdle &&
         !settling_;
}

void MetadataWriter::fail(const char* what, int error, bool flush) {
  if (failed_) return;
  failed_ = true;
  if (on_failed_)
    on_failed_(flush, std::string("metadata: ") + what + " failed: " + std::strerror(-error));
}

void MetadataWriter::close() {
  if (closed_) return;
  failed_ = true;
  commit([](bool) {});
  closed_ = true;
}

// --- superblock ---

void MetadataWriter::commit(Done done) {
  if (closed_) {
    commit_refused_.push_back(std::move(done));
    return;
  }
  commit_next_.push_back(std::move(done));
  if (!committing_) start_commit();
}

void MetadataWriter::start_commit() {
  committing_ = true;
  commit_now_ = std::exchange(commit_next_, {});
  ++superblock_.serial;
  commit_copy_ = 0;
  encode_superblock(superblock_, 0, as_block(superblock_buffer_));
  superblock_io_ = Io{};
  superblock_io_.target = IoTarget::kMeta;
  superblock_io_.kind = IoKind::kWrite;
  superblock_io_.flags = kIoFua;
  superblock_io_.offset = layout_.superblock_block(0) * kBlockSize;
  superblock_io_.length = kBlockSize;
  superblock_io_.buffer = superblock_buffer_;
  superblock_io_.context = this;
  superblock_io_.done = [](void* self, Io* io) {
    static_cast<MetadataWriter*>(self)->commit_written(io);
  };
  host_.submit(&superblock_io_);
}

void MetadataWriter::commit_written(Io* io) {
  if (io->result != 0) fail("writing the superblock", io->result);
  if (commit_copy_ == 0 && io->result == 0) {
    // The image of copy 0 is what is durable now; the same content goes to copy 1, whatever changed
    // since.
    commit_copy_ = 1;
    const SuperblockParse parsed = parse_superblock(as_block(superblock_buffer_));
    check(parsed.error == SuperblockError::kNone, "own superblock does not parse");
    encode_superblock(parsed.superblock, 1, as_block(superblock_buffer_));
    superblock_io_.offset = layout_.superblock_block(1) * kBlockSize;
    host_.submit(&superblock_io_);
    return;
  }
  committing_ = false;
  committed_ = io->result == 0;
  const bool ok = !failed_;
  std::vector<Done> done = std::exchange(commit_now_, {});
  if (!commit_next_.empty()) start_commit();
  for (Done& callback : done) callback(ok);
}

// --- maps ---

uint64_t MetadataWriter::stale_blocks() const {
  uint64_t blocks = 0;
  for (const auto& map : maps_) {
    if (map != nullptr) blocks += map->stale_blocks();
  }
  return blocks;
}

void MetadataWriter::add_stale(uint32_t max_blocks, std::vector<MapBlockId>* out) const {
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    if (maps_[slot] == nullptr) continue;
    std::optional<uint64_t> block = maps_[slot]->next_stale(0);
    while (block && out->size() < max_blocks) {
      out->push_back({slot, *block});
      block = maps_[slot]->next_stale(*block + 1);
    }
  }
}

void MetadataWriter::sweep_maps(uint32_t max_blocks, Done done) {
  MapJob job;
  add_stale(max_blocks, &job.blocks);
  job.done = std::move(done);
  queue_job(std::move(job), false);
}

void MetadataWriter::write_all_maps(Done done) {
  MapJob job;
  add_stale(UINT32_MAX, &job.blocks);
  job.flush_data = true;
  job.done = [this, done = std::move(done)](bool ok) mutable {
    if (ok && stale_blocks() != 0) {
      write_all_maps(std::move(done));
    } else {
      done(ok);
    }
  };
  queue_job(std::move(job), false);
}

void MetadataWriter::queue_job(MapJob job, bool first) {
  if (first) {
    jobs_.push_front(std::move(job));
  } else {
    jobs_.push_back(std::move(job));
  }
  if (!job_active_) start_job();
}

void MetadataWriter::start_job() {
  job_ = std::move(jobs_.front());
  jobs_.pop_front();
  job_active_ = true;
  job_next_ = 0;
  job_ok_ = !failed_;
  pump_job();
}

void MetadataWriter::pump_job() {
  for (MapWrite& write : map_writes_) {
    if (closed_) break;
    if (write.busy) continue;
    // A block may have been written by an earlier job since it was put on this list.
    while (job_next_ < job_.blocks.size() &&
           !maps_[job_.blocks[job_next_].slot]->block_stale(job_.blocks[job_next_].block)) {
      job_.blocks[job_next_] = job_.blocks.back();
      job_.blocks.pop_back();
    }
    if (job_next_ >= job_.blocks.size()) break;
    const MapBlockId id = job_.blocks[job_next_++];
    std::array<uint64_t, kMapBlockWords> words;
    DirtyMap& map = *maps_[id.slot];
    map.begin_write(id.block, words);
    encode_map_block({metadata_id_, id.slot, id.block, map.chunk_bytes()}, words,
                     as_block(write.buffer));
    write.busy = true;
    ++job_out_;
    write.io = Io{};
    write.io.target = IoTarget::kMeta;
    write.io.kind = IoKind::kWrite;
    write.io.offset = layout_.map_block(id.slot, id.block) * kBlockSize;
    write.io.length = kBlockSize;
    write.io.buffer = write.buffer;
    write.io.context = &write;
    write.io.done = [](void* self, Io*) {
      MapWrite* done = static_cast<MapWrite*>(self);
      done->writer->map_written(done);
    };
    host_.submit(&write.io);
  }
  if (job_out_ == 0) flush_job();
}

void MetadataWriter::map_written(MapWrite* write) {
  write->busy = false;
  --job_out_;
  if (write->io.result != 0) {
    job_ok_ = false;
    fail("writing a map block", write->io.result);
  }
  pump_job();
}

void MetadataWriter::flush_job() {
  if (closed_) {
    job_flushed(false);
    return;
  }
  const bool data = job_.flush_data || (shares_device_ && !job_.blocks.empty());
  const bool meta = !shares_device_ && !job_.blocks.empty();
  job_flushes_ = (data ? 1 : 0) + (meta ? 1 : 0);
  if (job_flushes_ == 0) {
    job_flushed(true);
    return;
  }
  if (data && settling_) {
    job_waits_ = true;
    return;
  }
  const auto flush = [this](Io* io, IoTarget target) {
    *io = flush_of(target, this, [](void* self, Io* done) {
      MetadataWriter* writer = static_cast<MetadataWriter*>(self);
      if (done->result != 0) {
        writer->job_ok_ = false;
        writer->fail("flushing", done->result, true);
      } else if (done->target == IoTarget::kData) {
        writer->settled(std::exchange(writer->job_settles_, 0));
      }
      if (--writer->job_flushes_ == 0) writer->job_flushed(writer->job_ok_);
    });
    host_.submit(io);
  };
  if (data) {
    if (log_ != nullptr) job_settles_ = log_->settle_begins();
    flush(&flush_data_, IoTarget::kData);
  }
  if (meta) flush(&flush_meta_, IoTarget::kMeta);
}

void MetadataWriter::job_flushed(bool ok) {
  const bool all_ok = ok && job_ok_ && !failed_;
  for (const MapBlockId& id : job_.blocks) maps_[id.slot]->end_write(id.block, all_ok);
  Done done = std::move(job_.done);
  job_active_ = false;
  // Before the next job begins: who is told may look at the maps, where a block that is being
  // written is not stale, though not durable either.
  done(all_ok);
  if (!job_active_ && !jobs_.empty()) start_job();
}

// --- activity log ---

void MetadataWriter::poll_log() {
  for (Done& refused : std::exchange(commit_refused_, {})) refused(false);
  if (log_phase_ != LogPhase::kIdle || failed_ || log_ == nullptr || !log_->transaction_wanted())
    return;
  transaction_ = &log_->start_transaction();
  ++transactions_;
  MapJob job;
  const bool marks_wait = marks_of(transaction_->evicted, &job.blocks);
  job.flush_data = !transaction_->settled;
  if (!marks_wait && !job.flush_data) {
    write_log_block();
    settle();
    return;
  }
  log_phase_ = LogPhase::kMaps;
  job.done = [this](bool ok) {
    if (ok) {
      write_log_block();
    } else {
      log_written(-EIO);
    }
  };
  queue_job(std::move(job), true);
}

// Adds the map blocks that have marks of these extents which are not on disk, nor on their way.
// Returns whether there are any, or are on their way.
bool MetadataWriter::marks_of(const std::vector<uint32_t>& extents,
                              std::vector<MapBlockId>* stale) const {
  bool writing = false;
  const uint64_t extent_bytes = layout_.geometry.extent_bytes;
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    const DirtyMap* map = maps_[slot].get();
    if (map == nullptr) continue;
    for (const uint32_t extent : extents) {
      const ChunkRange blocks = map->blocks_of({extent * extent_bytes, extent_bytes});
      for (uint64_t block = blocks.first; block < blocks.first + blocks.count; ++block) {
        writing = writing || map->block_writing(block);
        if (!map->block_stale_set(block)) continue;
        const bool listed =
            !stale->empty() && stale->back().slot == slot && stale->back().block == block;
        if (!listed) stale->push_back({slot, block});
      }
    }
  }
  return writing || !stale->empty();
}

// Flushes the backing disk for the evictions to come (R3). Not beside a job's flush: where one of
// two fails, the kernel may tell the other that all is well.
void MetadataWriter::settle() {
  if (settling_ || job_flushes_ != 0 || closed_ || !log_->settle_wanted()) return;
  settling_ = true;
  settles_ = log_->settle_begins();
  settle_io_ = flush_of(IoTarget::kData, this, [](void* self, Io* io) {
    auto* writer = static_cast<MetadataWriter*>(self);
    writer->settling_ = false;
    if (io->result != 0) {
      writer->fail("flushing", io->result, true);
    } else {
      writer->settled(std::exchange(writer->settles_, 0));
    }
    if (std::exchange(writer->job_waits_, false)) writer->flush_job();
  });
  host_.submit(&settle_io_);
}

void MetadataWriter::settled(uint64_t number) {
  if (number != 0 && !failed_) log_->settled(number);
}

void MetadataWriter::write_log_block() {
  if (closed_) {
    log_written(-EIO);
    return;
  }
  log_phase_ = LogPhase::kBlock;
  encode_log_block({metadata_id_, superblock_.node_slot, layout_.geometry.log_extents},
                   *transaction_, as_block(log_buffer_));
  log_io_ = Io{};
  log_io_.target = IoTarget::kMeta;
  log_io_.kind = IoKind::kWrite;
  log_io_.flags = kIoFua;
  log_io_.offset = layout_.log_block(superblock_.node_slot, transaction_->number) * kBlockSize;
  log_io_.length = kBlockSize;
  log_io_.buffer = log_buffer_;
  log_io_.context = this;
  log_io_.done = [](void* self, Io* io) {
    static_cast<MetadataWriter*>(self)->log_written(io->result);
  };
  host_.submit(&log_io_);
}

void MetadataWriter::log_written(int error) {
  if (error != 0) fail("writing the activity log", error);
  log_phase_ = LogPhase::kIdle;
  transaction_ = nullptr;
  log_->transaction_done(error == 0);
  if (log_changed_) log_changed_(error == 0);
}

}  // namespace tidemark
