// Writes the metadata of a running volume: superblock commits, map blocks, activity log
// transactions.
//
// Invariants
// - A superblock change is written with FUA to copy 0, then to copy 1; a commit is done after both
// (R14). Commits asked for while one is
//   under way share the next.
// - A log transaction that evicts: map blocks of the evicted extents for every slot and a flush of
// the backing disk, all durable, then the log
//   block with FUA; one that only adds: the log block alone (R2). The backing disk is flushed
//   ahead, beside other transactions, so that the extents to be evicted next are settled as a rule.
// - One map job is under way at a time, so that no map block has two writes in flight. Evictions go
// before sweeps.
// - After any metadata write failed nothing is promised any more: failed() stays true, everything
// that waits is told so.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "core/activity_log.h"
#include "core/dirty_map.h"
#include "core/host.h"
#include "core/layout.h"
#include "core/superblock.h"

namespace tidemark {

class MetadataWriter {
 public:
  using Done = std::function<void(bool ok)>;
  using Maps = std::array<std::unique_ptr<DirtyMap>, kMaxPeerSlots>;

  struct Parts {
    Host& host;
    Superblock& superblock;
    const Layout& layout;
    Maps& maps;
    bool shares_device;  // a flush of the data makes metadata durable too
  };
  explicit MetadataWriter(Parts parts);
  ~MetadataWriter();
  MetadataWriter(const MetadataWriter&) = delete;
  MetadataWriter& operator=(const MetadataWriter&) = delete;

  // Make the superblock, as it is now, durable.
  void commit(Done done);

  // The log that transactions are taken from. Replaced only while no transaction is in flight.
  void set_log(ActivityLog* log) {
    log_ = log;
    job_settles_ = 0;
    settles_ = 0;
  }
  // Called after each transaction, when waiters may try again.
  void on_log_changed(std::function<void(bool ok)> callback) { log_changed_ = std::move(callback); }
  // Start a log transaction if one is wanted and none is in flight.
  void poll_log();
  bool log_in_flight() const { return log_phase_ != LogPhase::kIdle; }

  // Write up to `max_blocks` stale map blocks of any slot; done(true) after they are durable.
  void sweep_maps(uint32_t max_blocks, Done done);
  // Flush the backing disk and write every stale map block, until none is left.
  void write_all_maps(Done done);
  uint64_t stale_blocks() const;

  bool idle() const;
  bool failed() const { return failed_; }
  // The superblock that a commit's `done` is called for reached the disk, whatever failed before.
  bool committed() const { return committed_; }
  // A flush of the backing disk failed elsewhere. The kernel tells that once: a flush of ours that
  // succeeds from now on says nothing, and no extent may leave the log on the strength of it (R3).
  void give_up() { failed_ = true; }
  // The superblock is written once more, if it can be; after that nothing is started here any more,
  // and who asks is told at the next poll_log() that it failed.
  void close();
  // Called when a write or flush of the metadata failed for the first time, before anybody is told
  // the outcome.
  // `flush`: it was a flush.
  void on_failed(std::function<void(bool flush, const std::string& why)> callback) {
    on_failed_ = std::move(callback);
  }
  uint64_t transactions() const { return transactions_; }

 private:
  static constexpr uint32_t kMapWritesInFlight = 16;
  enum class LogPhase : uint8_t { kIdle, kMaps, kBlock };
  struct MapBlockId {
    uint32_t slot;
    uint64_t block;
  };
  struct MapJob {
    std::vector<MapBlockId> blocks;
    bool flush_data = false;
    Done done;
  };
  struct MapWrite {
    Io io;
    MetadataWriter* writer = nullptr;
    uint8_t* buffer = nullptr;
    bool busy = false;
  };

  void fail(const char* what, int error, bool flush = false);
  void start_commit();
  void commit_written(Io* io);
  void add_stale(uint32_t max_blocks, std::vector<MapBlockId>* out) const;
  void queue_job(MapJob job, bool first);
  void start_job();
  void pump_job();
  void map_written(MapWrite* write);
  void flush_job();
  void job_flushed(bool ok);
  bool marks_of(const std::vector<uint32_t>& extents, std::vector<MapBlockId>* stale) const;
  void settle();
  void settled(uint64_t number);
  void write_log_block();
  void log_written(int error);

  Host& host_;
  Superblock& superblock_;
  const Layout& layout_;
  Maps& maps_;
  const bool shares_device_;
  ActivityLog* log_ = nullptr;
  std::function<void(bool)> log_changed_;
  std::function<void(bool, const std::string&)> on_failed_;
  bool failed_ = false;
  bool closed_ = false;
  uint64_t metadata_id_ = 0;
  uint64_t transactions_ = 0;

  // superblock
  uint8_t* superblock_buffer_ = nullptr;
  Io superblock_io_;
  uint32_t commit_copy_ = 0;
  bool committing_ = false;
  bool committed_ = false;
  std::vector<Done> commit_now_;
  std::vector<Done> commit_next_;
  std::vector<Done> commit_refused_;  // asked for after close()

  // maps
  std::deque<MapJob> jobs_;
  bool job_active_ = false;
  MapJob job_;
  size_t job_next_ = 0;
  uint32_t job_out_ = 0;
  uint32_t job_flushes_ = 0;
  uint64_t job_settles_ = 0;  // as settles_
  bool job_waits_ = false;    // for the flush that settles, before its own
  bool job_ok_ = true;
  std::array<MapWrite, kMapWritesInFlight> map_writes_;
  Io flush_data_;
  Io flush_meta_;

  // log
  LogPhase log_phase_ = LogPhase::kIdle;
  const LogTransaction* transaction_ = nullptr;
  uint8_t* log_buffer_ = nullptr;
  Io log_io_;
  Io settle_io_;
  bool settling_ = false;
  uint64_t settles_ = 0;  // the number of its flush under way; 0: the log is another now
};

}  // namespace tidemark
