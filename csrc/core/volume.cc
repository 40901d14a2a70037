// Life, requests' entry, timers and status of a volume.
#include "core/volume.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/volume_impl.h"

namespace tidemark {

const char* role_text(Role role) { return role == Role::kPrimary ? "Primary" : "Secondary"; }

const char* disk_text(DiskState disk) {
  switch (disk) {
    case DiskState::kDiskless:
      return "Diskless";
    case DiskState::kFailed:
      return "Failed";
    case DiskState::kInconsistent:
      return "Inconsistent";
    case DiskState::kOutdated:
      return "Outdated";
    case DiskState::kConsistent:
      return "Consistent";
    case DiskState::kUpToDate:
      return "UpToDate";
  }
  return "?";
}

const char* connection_text(Connection connection) {
  switch (connection) {
    case Connection::kStandAlone:
      return "StandAlone";
    case Connection::kPrepared:
      return "Prepared";
    case Connection::kExchangingMaps:
      return "ExchangingMaps";
    case Connection::kSyncSource:
      return "SyncSource";
    case Connection::kSyncTarget:
      return "SyncTarget";
    case Connection::kConnected:
      return "Connected";
  }
  return "?";
}

VolumeImpl::VolumeImpl(Host& host_in, std::unique_ptr<Attachment> attachment_in,
                       uint32_t block_bytes_in, bool shares_device)
    : host(host_in),
      attachment(std::move(attachment_in)),
      block_bytes(block_bytes_in),
      meta({host_in, attachment->superblock, attachment->layout, attachment->maps, shares_device}),
      transfer(kTransferEntries) {
  const Geometry& geometry = layout().geometry;
  const uint64_t extent_count =
      (geometry.volume_bytes + geometry.extent_bytes - 1) / geometry.extent_bytes;
  log = std::make_unique<ActivityLog>(geometry.log_extents, extent_count,
                                      attachment->log_next_number);
  meta.set_log(log.get());
  meta.on_log_changed([this](bool ok) {
    if (ok) {
      retry_log();
    } else {
      fail_log_waiters();
    }
  });
  meta.on_failed([this](bool flush, const std::string& why) {
    fault.holes = fault.holes || flush;
    disk_fault(Fault::kMetadata, why);
  });
  counters.marked_by_replay_chunks = attachment->replayed_chunks;
}

// Abandoned writes may still hold memory that is no buffer of the host's.
VolumeImpl::~VolumeImpl() {
  for (const auto& write : write_pool) std::free(write->bounce);
}

DiskState VolumeImpl::disk_state() const {
  if (diskless()) return DiskState::kDiskless;
  if (broken() || detaching()) return DiskState::kFailed;
  if ((sb().flags & kNodeConsistent) == 0) return DiskState::kInconsistent;
  if ((sb().flags & kNodeOutdated) != 0) return DiskState::kOutdated;
  return (sb().flags & kNodeWasUpToDate) != 0 ? DiskState::kUpToDate : DiskState::kConsistent;
}

void VolumeImpl::complete_now(Request* request, int result) {
  request->result = result;
  request->core_state = nullptr;
  --requests_out;
  host.complete(request);
}

void VolumeImpl::submit(Request* request) {
  ++requests_out;
  if (suspended && !stopped) {
    suspended_requests.push_back(request);
    return;
  }
  if (detaching() && !stopped) {
    fault.held.push_back(request);
    return;
  }
  const uint64_t size = layout().geometry.volume_bytes;
  if (stopped || role != Role::kPrimary) {
    complete_now(request, stopped ? -ENODEV : -EIO);
  } else if (request->op == Op::kFlush) {
    broken() ? complete_now(request, -EIO) : start_flush(request);
  } else if (request->offset > size || request->length > size - request->offset) {
    complete_now(request, request->op == Op::kRead ? -EINVAL : -ENOSPC);
  } else if (request->length == 0) {
    complete_now(request, 0);
  } else if (request->op == Op::kRead) {
    start_read(request);
  } else if (broken()) {
    complete_now(request, -EIO);
  } else {
    start_write(request);
  }
}

void VolumeImpl::set_suspended(const std::string& why) {
  suspend_reason = why;
  if (suspended) return;
  suspended = true;
  emit(EventKind::kIoSuspended, why);
}

void VolumeImpl::drop_suspended() {
  unserved = true;
  std::deque<Request*> waiting;
  waiting.swap(suspended_requests);
  for (Request* request : waiting) complete_now(request, -EIO);
  if (waits_for_peer()) drop_waiting();
}

void VolumeImpl::resume() {
  if (!suspended) return;
  suspended = false;
  fault.resumed = broken();
  suspend_reason.clear();
  emit(EventKind::kIoResumed);
  std::deque<Request*> waiting;
  waiting.swap(suspended_requests);
  for (Request* request : waiting) {
    --requests_out;  // submit() counts it again
    submit(request);
  }
}

void VolumeImpl::poll(uint64_t now) {
  forgive_pause(now);
  now_us = std::max(now_us, now);
  if (std::exchange(link.heard_now, false)) link.heard_us = now_us;
  log->set_now(now_us);
  // Metadata that failed write no log block any more: nothing else would wake who waits for one.
  if ((log_retry || meta.failed()) && !log_wait.empty() && !detaching()) retry_log();
  retry_send();
  poll_fault();
  if (link_active()) poll_link();
  if (link.state == Connection::kPrepared && now_us - link.prepared_us > limits.peer_timeout_us) {
    link_stop("the peer did not get ready in time");
  }
  if (link.stopping) link_check_idle();
  // What was under way when the device was taken away, and would have to wait only now.
  if (unserved && (waits_for_peer() || !suspended_requests.empty())) drop_suspended();
  if (now_us >= next_sweep_us) sweep();
  // A link that was given up just now let go of extents, and no I/O need be under way that would
  // bring another turn.
  if (log_retry && !log_wait.empty()) retry_log();
  meta.poll_log();
  check_quiet();
}

uint64_t VolumeImpl::next_deadline() const {
  uint64_t deadline = next_sweep_us;
  if (link_active()) {
    deadline = std::min({deadline, link.heard_us + limits.peer_timeout_us + 1,
                         link.sent_us + limits.ping_interval_us});
    if (transfer.open_epoch_writes() > 0) deadline = std::min(deadline, epoch_due_us());
  }
  if (link.unread_only && link_active()) deadline = std::min(deadline, link.unread_retry_us);
  if (link.state == Connection::kPrepared)
    deadline = std::min(deadline, link.prepared_us + limits.peer_timeout_us + 1);
  if (fault.hang_up_us != 0 && link_active()) deadline = std::min(deadline, fault.hang_up_us);
  for (const Quiet& waiter : quiet) deadline = std::min(deadline, waiter.deadline_us);
  return deadline;
}

namespace {

// Every mark of the map is on disk; clears may be missing, which costs time and no data.
bool marks_durable(const DirtyMap& map) {
  for (std::optional<uint64_t> block = map.next_stale(0); block;
       block = map.next_stale(*block + 1)) {
    if (map.block_stale_set(*block)) return false;
  }
  return true;
}

}  // namespace

// The lazy part of the metadata: idle extents leave the log, so that a crash after a quiet time
// costs nearly no resync, and cleared bits reach the disk.
void VolumeImpl::sweep() {
  next_sweep_us = now_us + limits.flush_interval_us;
  if (fault.unrecorded && !stopped && !diskless()) record_fault();
  if (sweeping || role_changing || stopped || meta.failed() || detaching()) return;
  // At most once in an interval: the disk may go on failing.
  if (link.write_failed && link.state == Connection::kConnected && role == Role::kPrimary) {
    link_stop("chunks whose write failed here are to be copied: a resync follows");
  }
  if (now_us > limits.flush_interval_us)
    log->retire_idle(now_us - limits.flush_interval_us, kRetireMax);
  if (meta.stale_blocks() == 0) return;
  sweeping = true;
  meta.sweep_maps(kSweepBlocks, [this](bool ok) {
    sweeping = false;
    if (!ok) return;
    bool changed_flags = false;
    for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
      // Once every block of an all-dirty map was written the blocks say more than the flag: a full
      // resync resumes where it was, at either end, also after a restart.
      const PeerSlot& peer = peer_slot(slot);
      const bool counted = peer.bitmap_generation != 0 || (peer.flags & kSlotFullSync) != 0;
      if ((peer.flags & kSlotAllDirty) != 0 && counted && attachment->maps[slot] != nullptr &&
          marks_durable(*attachment->maps[slot])) {
        peer_slot(slot).flags &= ~kSlotAllDirty;
        changed_flags = true;
      }
    }
    if (changed_flags) meta.commit([](bool) {});
    if (meta.stale_blocks() != 0) next_sweep_us = now_us;
  });
}

VolumeStatus VolumeImpl::status() const {
  VolumeStatus out = counters;
  out.now_us = now_us;
  out.role = role;
  out.disk = disk_state();
  out.connection = link.state;
  out.link_slot = link.state == Connection::kStandAlone ? kNoSlot : link.slot;
  out.peer_role = link.peer_role;
  out.peer_disk = link.peer_disk;
  out.protocol = link.params.protocol;
  out.volume_bytes = layout().geometry.volume_bytes;
  out.chunk_bytes = layout().geometry.chunk_bytes;
  out.extent_bytes = layout().geometry.extent_bytes;
  out.log_extents = log->capacity();
  out.log_hot = log->hot();
  out.log_transactions = meta.transactions();
  out.current = generation();
  out.flags = sb().flags;
  out.stale_map_blocks = meta.stale_blocks();
  out.suspended = suspended || waits_for_peer();
  out.suspend_reason = suspended ? suspend_reason : waits_for_peer() ? waiting_reason() : "";
  out.disk_reason = fault.why;
  out.requests_in_flight = requests_out;
  out.in_flight_writes = link.application_in_log;
  out.in_flight_bytes = link.application_bytes;
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    const PeerSlot& from = sb().slots[slot];
    PeerStatus& to = out.peers[slot];
    to.in_use = tracked(slot);
    to.node_id = from.node_id;
    to.name = from.name;
    to.flags = from.flags;
    to.bitmap_generation = from.bitmap_generation;
    if (attachment->maps[slot] != nullptr) {
      to.dirty_chunks = attachment->maps[slot]->count();
      to.dirty_bytes = attachment->maps[slot]->dirty_bytes();
    }
  }
  if (link.state == Connection::kSyncSource || link.state == Connection::kSyncTarget) {
    out.resync.active = true;
    out.resync.target = link.state == Connection::kSyncTarget;
    out.resync.bytes_done = link.sync_done_bytes;
    out.resync.bytes_total = link.sync_done_bytes + link_map()->dirty_bytes();
    out.resync.started_us = link.sync_started_us;
    if (link.unreadable) out.resync.unreadable_chunks = link.unreadable->count();
  }
  out.resync.chunks_sent = link.sync_chunks_sent;
  return out;
}

// --- the public face ---

Volume::Volume(Host& host, std::unique_ptr<Attachment> attachment, uint32_t block_bytes,
               bool meta_shares_device)
    : impl_(std::make_unique<Impl>(host, std::move(attachment), block_bytes, meta_shares_device)) {}
Volume::~Volume() = default;

void Volume::submit(Request* request) {
  impl_->unserved = false;
  impl_->submit(request);
}
void Volume::io_done(Io* io) { io->done(io->context, io); }
size_t Volume::link_input(std::span<const uint8_t> bytes) { return impl_->link_input(bytes); }
bool Volume::takes_input() const { return impl_->takes_input(); }
void Volume::poll(uint64_t now_us) { impl_->poll(now_us); }
uint64_t Volume::next_deadline_us() const { return impl_->next_deadline(); }

void Volume::set_limits(const Limits& limits) {
  impl_->limits = limits;
  impl_->next_sweep_us = std::min(impl_->next_sweep_us, impl_->now_us + limits.flush_interval_us);
}
void Volume::promote(bool force, Done done) { impl_->promote(force, std::move(done)); }
void Volume::demote(Done done) { impl_->demote(std::move(done)); }
void Volume::invalidate(uint32_t slot, Done done) { impl_->invalidate(slot, std::move(done)); }
void Volume::suspend(const std::string& why) { impl_->set_suspended(why); }
void Volume::drop_suspended() { impl_->drop_suspended(); }
void Volume::resume() { impl_->resume(); }
void Volume::stop(Done done) { impl_->stop(std::move(done)); }
void Volume::outdate_peer(Done done) { impl_->outdate_peer(std::move(done)); }

HandshakeState Volume::handshake_state(const Uuid& peer_id) const {
  return impl_->handshake_state(peer_id);
}
void Volume::link_prepare(const LinkParams& params, Done done) {
  impl_->link_prepare(params, std::move(done));
}
bool Volume::link_start() { return impl_->link_start(); }
void Volume::link_stop(const std::string& why) { impl_->link_stop(why); }
bool Volume::send_control(const std::string& json) { return impl_->send_control(json); }

VolumeStatus Volume::status() const { return impl_->status(); }
Connection Volume::connection() const { return impl_->link.state; }
uint64_t Volume::size_bytes() const { return impl_->layout().geometry.volume_bytes; }
uint32_t Volume::block_bytes() const { return impl_->block_bytes; }

}  // namespace tidemark
