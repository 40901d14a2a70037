// The link's life, and the sending side: frames, epochs, the transfer log and what acknowledgements
// do to it.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/crc32c.h"
#include "core/volume_impl.h"

namespace tidemark {

bool VolumeImpl::link_active() const {
  return link.state != Connection::kStandAlone && link.state != Connection::kPrepared;
}

uint32_t VolumeImpl::find_slot(const Uuid& peer) const {
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    if (tracked(slot) && sb().slots[slot].node_id == peer) return slot;
  }
  return kNoSlot;
}

namespace {

// As the superblock keeps a name: cut at a character, padded with zeroes.
struct SlotName {
  char text[sizeof PeerSlot::name] = {};
  explicit SlotName(const std::string& name) {
    size_t bytes = std::min(name.size(), sizeof text - 1);
    while (bytes > 0 && bytes < name.size() && (name[bytes] & 0xc0) == 0x80) --bytes;
    std::memcpy(text, name.data(), bytes);
  }
};

}  // namespace

uint32_t VolumeImpl::find_slot_named(const std::string& name) const {
  const SlotName wanted(name);
  if (wanted.text[0] == 0) return kNoSlot;
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    if (tracked(slot) && std::memcmp(sb().slots[slot].name, wanted.text, sizeof wanted.text) == 0) {
      return slot;
    }
  }
  return kNoSlot;
}

HandshakeState VolumeImpl::handshake_state(const Uuid& peer) const {
  HandshakeState out;
  out.serial = state_serial;
  out.idle =
      link.state == Connection::kStandAlone && link.idle && !role_changing && gate_commits == 0;
  out.role = role;
  out.disk = disk_state();
  out.volume_bytes = layout().geometry.volume_bytes;
  out.chunk_bytes = layout().geometry.chunk_bytes;
  out.node_id = sb().node_id;
  out.current = generation();
  out.history = sb().history;
  out.flags = sb().flags;
  out.slot = find_slot(peer);
  out.dirty_chunks = (out.volume_bytes + out.chunk_bytes - 1) / out.chunk_bytes;
  if (out.slot != kNoSlot) {
    out.bitmap = sb().slots[out.slot].bitmap_generation;
    out.slot_flags = sb().slots[out.slot].flags;
    out.dirty_chunks = attachment->maps[out.slot]->count();
  }
  return out;
}

void VolumeImpl::link_prepare(const LinkParams& params, Done done) {
  if (stopped || role_changing || link.state != Connection::kStandAlone || !link.idle) {
    done(-EBUSY, "another link, or a role change, is under way");
    return;
  }
  if (params.serial != state_serial) {
    done(-ESTALE, "the state changed since the handshake began");
    return;
  }
  if (params.side == SyncSide::kTarget && role == Role::kPrimary) {
    done(-EPERM, "a primary cannot be the target of a resync");
    return;
  }
  if (params.incarnation == 0 || params.peer_id.is_zero() || params.peer_id == sb().node_id) {
    done(-EINVAL, "no incarnation, or a peer without an identity of its own");
    return;
  }
  if (params.side == SyncSide::kNone && params.peer_current != generation()) {
    done(-EINVAL, "the generations differ, and yet there is nothing to do");
    return;
  }
  const bool serves = params.peer_disk == DiskState::kDiskless;
  if ((serves || diskless()) && (serves == diskless() || params.side != SyncSide::kNone ||
                                 (serves ? params.peer_role : role) != Role::kPrimary ||
                                 find_slot(params.peer_id) == kNoSlot)) {
    done(-EINVAL,
         "one side has no disk: only a primary works without one, at a peer that it knows");
    return;
  }
  if (params.side != SyncSide::kNone && params.full &&
      params.sync_generation <= kGenerationJustCreated) {
    done(-EINVAL, "a full resync without a generation");
    return;
  }
  uint32_t slot = find_slot(params.peer_id);
  bool commit = false;
  bool flush = false;
  if (slot == kNoSlot) {
    // A blank disk in the place of one that was lost: what the old one lacked is of no interest any
    // more, and should it come back it finds its name taken (R8).
    slot = find_slot_named(params.peer_name);
    const bool blank = params.side == SyncSide::kSource && params.full &&
                       params.peer_current == kGenerationJustCreated;
    if (slot == kNoSlot) {
      slot = 0;
      while (slot < layout().geometry.peer_slots && tracked(slot)) ++slot;
    } else if (!blank) {
      done(-EINVAL, "the slot of that name belongs to another identity");
      return;
    }
    if (slot >= layout().geometry.peer_slots) {
      done(-ENOSPC,
           "all " + std::to_string(layout().geometry.peer_slots) + " peer slots are in use");
      return;
    }
    PeerSlot fresh;
    fresh.node_id = params.peer_id;
    fresh.flags = kSlotInUse | kSlotAllDirty;
    // A primary's writes may be in this disk's cache alone, and in no log (R1): whoever is met next
    // must not have what a power cut takes away here.
    flush = tracked(slot) || tracks_others(slot);
    peer_slot(slot) = fresh;
    attachment->maps[slot] =
        std::make_unique<DirtyMap>(layout().geometry.volume_bytes, layout().geometry.chunk_bytes);
    attachment->maps[slot]->mark_all();
    commit = true;
  }
  // So may what a secondary passes on: nothing would say that it differs from the target's copy.
  const bool passes_on = params.side == SyncSide::kSource && role != Role::kPrimary;
  flush = flush || (passes_on && !diskless());
  commit = commit || flush;
  PeerSlot& peer = peer_slot(slot);
  DirtyMap& map = *attachment->maps[slot];
  const PeerSlot before = peer;
  std::memcpy(peer.name, SlotName(params.peer_name).text, sizeof peer.name);
  peer.last_generation = params.peer_current;
  if (!serves && !diskless()) peer.flags &= ~kSlotServed;
  peer.flags &= ~kSlotPeerOutdated;  // it stays the last primary until this node is promoted
  if (params.peer_role == Role::kPrimary) peer.flags |= kSlotPeerPrimary;

  if (params.side != SyncSide::kNone && params.full) {
    map.mark_all();
    peer.flags |= kSlotAllDirty | kSlotFullSync;
  }
  if (params.side == SyncSide::kSource && params.full) {
    sb().push_history(peer.bitmap_generation);
    peer.bitmap_generation = params.sync_generation;
    peer.flags &= ~kSlotSyncEnding;
  } else if (params.side == SyncSide::kTarget) {
    // R17: before anything of the source's lands here, this disk is known not to be whole.
    sb().flags &= ~kNodeConsistent;
    if (params.full) {
      sb().push_history(sb().current);
      sb().current = params.sync_generation;
    } else if (sb().current != params.peer_current && params.peer_bitmap != kGenerationNone) {
      sb().current = params.peer_bitmap;  // what the resync starts from, so that it can be resumed
    }
    sb().push_history(peer.bitmap_generation);
    peer.bitmap_generation = kGenerationNone;
    peer.flags &= ~kSlotSyncEnding;
  } else if (serves) {
    peer.flags |= kSlotServed;  // B and the marks are of the disk that it lost
  } else if (params.side == SyncSide::kNone && !diskless()) {
    // In step: both share the current generation, so that the next break makes a new one (R7).
    sb().push_history(peer.bitmap_generation);
    peer.bitmap_generation = kGenerationNone;
    peer.flags &= ~kSlotSyncEnding;
  }
  commit = commit || params.side != SyncSide::kNone ||
           before.bitmap_generation != peer.bitmap_generation ||
           std::memcmp(before.name, peer.name, sizeof peer.name) != 0 ||
           before.flags != peer.flags || before.last_generation != peer.last_generation;
  commit = commit && !diskless();  // there is nothing to write it to

  const uint32_t serial = ++link.serial;
  const bool idle_before = link.idle;
  check(idle_before, "a new link over an old one");
  const uint32_t keep_serial = serial;
  link = LinkState{};
  link.serial = keep_serial;
  link.state = Connection::kPrepared;
  link.idle = false;
  link.slot = slot;
  link.params = params;
  link.peer_role = params.peer_role;
  link.peer_disk = params.peer_disk;
  link.peer_detached = serves;
  link.told_role = role;
  link.prepared_us = now_us;
  transfer.reset(1, 1);
  changed();
  const auto ready = [this, serial, done = std::move(done)](bool ok) {
    if (!ok) {
      done(-EIO, "the metadata can no longer be written");
    } else if (link.serial != serial || link.state != Connection::kPrepared) {
      done(-ECANCELED, "the link was given up");
    } else {
      emit(EventKind::kDiskState, disk_text(disk_state()));
      done(0, "");
    }
  };
  if (flush) {
    flush_for_new_peer([this, ready](bool ok) { ok ? meta.commit(ready) : ready(false); });
  } else if (commit) {
    meta.commit(ready);
  } else {
    ready(true);
  }
}

bool VolumeImpl::tracks_others(uint32_t slot) const {
  for (uint32_t other = 0; other < kMaxPeerSlots; ++other) {
    if (other != slot && tracked(other)) return true;
  }
  return false;
}

// What came here without the log (R1) and is only in the cache of this disk is covered by the log
// of the primary that sent it, and by nothing for a node that was not known then: power that goes
// after the two are in step would leave them different, and unmarked.
void VolumeImpl::flush_for_new_peer(std::function<void(bool)> done) {
  link.epoch_flushing = true;
  link.flushed_for_new_peer = std::move(done);
  link.epoch_flush_io = Io{};
  link.epoch_flush_io.kind = IoKind::kFlush;
  link.epoch_flush_io.context = this;
  link.epoch_flush_io.done = [](void* context, Io* io) {
    auto* self = static_cast<VolumeImpl*>(context);
    self->link.epoch_flushing = false;
    const std::function<void(bool)> then = std::exchange(self->link.flushed_for_new_peer, {});
    if (io->result != 0) self->flush_failed("flush for a new peer", io->result);
    then(io->result == 0);
    if (self->link.stopping) self->link_check_idle();
  };
  host.submit(&link.epoch_flush_io);
}

bool VolumeImpl::link_start() {
  if (link.state != Connection::kPrepared) return false;
  link.heard_us = now_us;
  link.sent_us = now_us;
  link.progress_us = now_us;
  link.state =
      link.params.side == SyncSide::kNone ? Connection::kConnected : Connection::kExchangingMaps;
  changed();
  if (link.params.side == SyncSide::kNone) {
    // Equal copies: what a crash or an orderly disconnect left behind has been answered.
    const uint32_t before = sb().flags;
    sb().flags &= ~kNodeCrashedPrimary;
    share_standing();
    if (sb().flags != before && !diskless()) {
      meta.commit([this](bool) { emit(EventKind::kDiskState, disk_text(disk_state())); });
    }
  } else {
    sync_start();
  }
  // It stepped down meanwhile, and the handshake said otherwise.
  if (role != link.told_role) tell_role();
  emit(EventKind::kLinkState, connection_text(link.state));
  if (diskless() && !suspended) emit(EventKind::kIoResumed);
  retry_send();
  drain_gate();
  return true;
}

void VolumeImpl::set_standing(DiskState standing) {
  sb().flags &= ~(kNodeOutdated | kNodeWasUpToDate);
  if (standing == DiskState::kUpToDate) sb().flags |= kNodeWasUpToDate;
  if (standing == DiskState::kOutdated) sb().flags |= kNodeOutdated;
}

// Equal copies are as new as the better known of the two. Where neither is UpToDate, nobody has
// answered yet for the newer copy that one of them was told of, or for the flush that failed (R11,
// R18).
void VolumeImpl::share_standing() {
  const auto whole = [](DiskState disk) { return disk >= DiskState::kOutdated; };
  const DiskState mine = disk_state();
  if (diskless() && whole(link.peer_disk)) link.peer_disk = DiskState::kUpToDate;
  // What a primary works on is what counts, whatever was said before.
  if (link.peer_disk == DiskState::kDiskless) sb().flags &= ~kNodeOutdated;
  if (!whole(mine) || !whole(link.peer_disk)) return;
  DiskState standing = std::min(mine, link.peer_disk);
  if (std::max(mine, link.peer_disk) == DiskState::kUpToDate) standing = DiskState::kUpToDate;
  set_standing(standing);
  link.peer_disk = standing;
}

void VolumeImpl::link_stop(const std::string& why) {
  if (link.state == Connection::kStandAlone) return;
  link.state = Connection::kStandAlone;
  link.stopping = true;
  ++link.serial;
  changed();
  link.controls.clear();
  link.written.clear();
  link.hard_wait = false;
  const bool abandoned = detaching();
  fault.hang_up_us = 0;
  if (abandoned) {
    fault.use = fault.fatal ? DiskFault::Use::kFailed : DiskFault::Use::kInUse;
    // The peer may have it: in the past of whatever is made from here on, first by the writes
    // below.
    sb().push_history(fault.generation);
  }
  forget_transfer_log();
  drop_tasks();
  remote_reads_lost();
  drop_served_reads();
  emit(EventKind::kLinkDown, why);
  if (waits_for_peer() && !suspended) emit(EventKind::kIoSuspended, waiting_reason());
  // Those who waited for the peer now wait for the generation that says it is apart (R7).
  std::deque<Write*> waiting;
  waiting.swap(epoch_wait);
  for (Write* write : waiting) {
    write->epoch_wait = 0;
    write->restart = write->restart || diskless();
    settle(write);
  }
  retry_send();
  drain_gate();
  if (abandoned) detach_abandoned();
  std::deque<Drain> drained;
  drained.swap(drains);
  for (Drain& drain : drained) drain.done(0, "");
  if (link.outdate_done) std::exchange(link.outdate_done, nullptr)(-ENOTCONN, "the link went down");
  link_check_idle();
}

void VolumeImpl::link_check_idle() {
  if (!link.stopping) return;
  // Before the peer's writes: one may wait for the lock of a task, or of a read for the peer.
  const bool no_reads = drop_served_reads();
  const bool none = drop_tasks() && no_reads;
  if (!link.stopping || !none) return;
  if (link.writes_out != 0 || link.epoch_flushing || link.target_finishing) return;
  link.stopping = false;
  link.idle = true;
  link.epochs.clear();
  link.target_done.clear();
  emit(EventKind::kLinkIdle);
}

// --- sending ---

bool VolumeImpl::room_for(size_t payload_bytes) const {
  return link.controls.empty() && !transfer.full() &&
         host.send_space() >= kFrameHeaderBytes + payload_bytes + kSendHeadroom;
}

bool VolumeImpl::send_frame(FrameHeader header, const uint8_t* payload, bool headroom) {
  const size_t bytes = kFrameHeaderBytes + header.payload_bytes;
  if (host.send_space() < bytes + (headroom ? kSendHeadroom : 0)) return false;
  uint8_t* out = host.send_reserve(bytes);
  if (out == nullptr) return false;
  header.incarnation = link.params.incarnation;
  header.payload_crc = 0;
  if (header.payload_bytes != 0) {
    std::memcpy(out + kFrameHeaderBytes, payload, header.payload_bytes);
    header.payload_crc = crc32c(0, out + kFrameHeaderBytes, header.payload_bytes);
  }
  encode_frame_header(header, std::span<uint8_t, kFrameHeaderBytes>(out, kFrameHeaderBytes));
  host.send_commit(bytes);
  link.sent_us = now_us;
  counters.sent_bytes += bytes;
  return true;
}

// Frames without payload keep their order among each other and before any write that follows
// (room_for).
void VolumeImpl::send_or_queue(const FrameHeader& header) {
  if (!link.controls.empty() || !link.written.empty() || !send_frame(header, nullptr, false)) {
    link.controls.push_back(header);
  }
}

void VolumeImpl::flush_controls() {
  send_written();
  if (!link.written.empty()) return;
  while (!link.controls.empty() && send_frame(link.controls.front(), nullptr, false))
    link.controls.pop_front();
}

// What the peer needs of this step of a write: the frame, its place in the transfer log, and the
// epoch it waits for.
void VolumeImpl::append_sent(Write* write) {
  const Protocol protocol = link.params.protocol;
  if (write->kind == IoKind::kFlush) {
    const bool nothing_open = transfer.open_epoch_writes() == 0;
    if (nothing_open && transfer.closed_epochs() == 0)
      return;  // all that was sent is durable there
    const uint32_t epoch =
        nothing_open && link.last_closed_hard ? transfer.open_epoch() - 1 : close_epoch(true);
    if (protocol == Protocol::kC || diskless()) {
      write->epoch_wait = epoch;
      epoch_wait.push_back(write);
    }
    return;
  }
  const bool last = write->piece.end() == write->range.end();
  if (transfer.open_epoch_writes() == 0) link.epoch_opened_us = now_us;
  FrameHeader header;
  header.type = write->piece_kind == IoKind::kWrite     ? FrameType::kData
                : write->piece_kind == IoKind::kDiscard ? FrameType::kDiscard
                                                        : FrameType::kZeroes;
  header.sequence = transfer.next_sequence();
  header.epoch = transfer.open_epoch();
  header.offset = write->aligned.offset;
  header.length = static_cast<uint32_t>(write->aligned.length);
  if (write->fua) header.flags |= kFrameFua;
  // Protocol A, at the bound of its window: this write waits for the peer, as MD's write-behind
  // does.
  const bool window_full = link.application_in_log >= limits.window_writes ||
                           link.application_bytes + write->aligned.length > limits.window_bytes;
  const bool wait = protocol == Protocol::kC || window_full || diskless();
  const uint8_t* payload = nullptr;
  if (write->piece_kind == IoKind::kWrite) {
    header.payload_bytes = header.length;
    payload = write->bounce != nullptr ? write->bounce
                                       : write->data + (write->piece.offset - write->range.offset);
  }
  // Without a disk here the write completes when it is durable there.
  if (wait && !diskless()) header.flags |= kFrameAckWritten;
  check(send_frame(header, payload, true), "a write was sent without room");
  transfer.append(write->aligned, false, wait ? write : nullptr).in_log = !diskless();
  ++link.application_in_log;
  link.application_us = now_us;
  link.application_bytes += write->aligned.length;
  link.application_ahead += write->aligned.length;
  if (wait) ++write->acks_pending;
  if (write->fua && last && !diskless()) {
    const uint32_t epoch = close_epoch(protocol != Protocol::kC);
    if (protocol == Protocol::kC) {
      write->epoch_wait = epoch;
      epoch_wait.push_back(write);
    }
  }
}

// What a resync alone sent need not be durable soon: nothing waits for it but the clearing of bits,
// and each epoch costs the target a flush.
uint64_t VolumeImpl::epoch_due_us() const {
  const bool resync = link.resync_in_epoch == transfer.open_epoch_writes();
  return link.epoch_opened_us + limits.epoch_interval_us * (resync ? kResyncEpochFactor : 1);
}

uint32_t VolumeImpl::close_epoch(bool hard) {
  FrameHeader header;
  header.type = FrameType::kBarrier;
  header.epoch = transfer.open_epoch();
  header.offset = transfer.open_epoch_writes();
  header.sequence = transfer.next_sequence() - 1;
  if (hard) header.flags |= kFrameHard;
  link.last_closed_hard = hard;
  link.resync_in_epoch = 0;
  link.resync_epoch_bytes = 0;
  const uint32_t epoch = transfer.close_epoch();
  send_or_queue(header);
  return epoch;
}

void VolumeImpl::release_peer(const TransferEntry& entry) {
  if (!entry.in_log) return;
  uint32_t first = 0;
  uint32_t last = 0;
  extents_of(entry.range, &first, &last);
  log->release(first, last, ActivityLog::Hold::kPeer);
}

// R7: everything that the peer may not have is marked. The writes that waited for it go on to the
// gate.
void VolumeImpl::forget_transfer_log() {
  std::vector<Write*> waiting;
  while (const TransferEntry* entry = transfer.front()) {
    if (!entry->resync) {
      mark_range(link.slot, entry->range);
      if (!diskless()) unshared_slots |= 1u << link.slot;
      release_peer(*entry);
      if (entry->owner != nullptr) waiting.push_back(static_cast<Write*>(entry->owner));
    }
    transfer.pop_front();
  }
  log_retry = true;
  link.application_in_log = 0;
  link.application_bytes = 0;
  link.application_ahead = 0;
  link.resync_in_log = 0;
  link.resync_bytes = 0;
  // A write may stand here once for each of its pieces: it is settled with the last, and may be
  // gone after that. In the order in which they were sent, so that two runs end requests in the
  // same order.
  std::vector<Write*> acknowledged;
  for (Write* write : waiting) {
    check(write->acks_pending > 0, "a write waits for more acknowledgements than it sent");
    write->restart = write->restart || diskless();
    if (--write->acks_pending == 0) acknowledged.push_back(write);
  }
  for (Write* write : acknowledged) settle(write);
}

void VolumeImpl::acknowledge_written(const FrameHeader& header,
                                     const std::vector<WrittenRange>& ranges) {
  for (const WrittenRange& range : ranges) {
    if (range.count > transfer.count()) {
      fail_frame(header, "acknowledges more writes than were sent");
      return;
    }
    for (uint64_t sequence = range.first; sequence < range.first + range.count; ++sequence) {
      TransferEntry* entry = transfer.find(sequence);
      if (entry == nullptr || entry->acknowledged) {
        fail_frame(header, "acknowledges write " + std::to_string(sequence) +
                               ", which does not wait for it");
        return;
      }
      if (range.error != 0) {
        // Its disk is not what it was: it is apart from now on, and everything it may miss is
        // marked.
        if (entry->resync && entry->owner != nullptr)
          static_cast<SyncTask*>(entry->owner)->voided = true;
        link_stop("the peer could not write " + std::to_string(entry->range.length) + " bytes at " +
                  std::to_string(entry->range.offset) + ": " +
                  std::strerror(range.error == INT32_MIN ? EIO : std::abs(range.error)));
        return;
      }
      entry->acknowledged = true;
      link.progress_us = now_us;
      if (entry->resync) {
        link.pace.written(sequence);
        link.pace.end(entry->range.length);
      } else {
        link.application_ahead -= entry->range.length;
      }
      if (entry->resync || entry->owner == nullptr) continue;
      Write* write = static_cast<Write*>(std::exchange(entry->owner, nullptr));
      --write->acks_pending;
      settle(write);
    }
  }
}

void VolumeImpl::acknowledge_epoch(uint32_t epoch) {
  link.progress_us = now_us;
  pop_durable();
  while (!epoch_wait.empty() && epoch_wait.front()->epoch_wait <= epoch) {
    Write* write = epoch_wait.front();
    epoch_wait.pop_front();
    write->epoch_wait = 0;
    settle(write);
  }
  // What is sent later does not count: a resync goes on sending.
  while (!drains.empty() && drains.front().upto <= transfer.base()) {
    const Done done = std::move(drains.front().done);
    drains.pop_front();
    done(0, "");
  }
}

void VolumeImpl::pop_durable() {
  while (const TransferEntry* entry = transfer.front_durable()) {
    const TransferEntry durable = *entry;
    transfer.pop_front();
    if (durable.resync) {
      --link.resync_in_log;
      link.resync_bytes -= durable.range.length;
      if (!durable.acknowledged) {  // durable is more than written
        link.pace.written(durable.sequence);
        link.pace.end(durable.range.length);
      }
      task_durable(static_cast<SyncTask*>(durable.owner), durable.range, durable.error != 0);
      continue;
    }
    release_peer(durable);
    log_retry = true;
    --link.application_in_log;
    link.application_bytes -= durable.range.length;
    if (!durable.acknowledged) link.application_ahead -= durable.range.length;
    if (durable.owner != nullptr) {  // durable is more than written
      Write* write = static_cast<Write*>(durable.owner);
      --write->acks_pending;
      settle(write);
    }
  }
}

void VolumeImpl::poll_link() {
  if (now_us - link.heard_us > limits.peer_timeout_us) {
    link_stop("nothing was heard from the peer for " +
              std::to_string((now_us - link.heard_us) / 1000) + " ms");
    return;
  }
  // Requests that wait for room wait for the peer, too.
  if (transfer.empty() && remote_reads.empty() && (send_wait.empty() || writes_held()))
    link.progress_us = now_us;
  if (now_us - link.progress_us > kStallTimeouts * limits.peer_timeout_us) {
    link_stop("the peer has acknowledged nothing for " +
              std::to_string((now_us - link.progress_us) / 1000) +
              " ms though it is alive: its disk hangs");
    return;
  }
  flush_controls();
  send_maps();
  pump_resync();
  if (!link_active()) return;
  pump_remote_reads();
  pump_served_reads();
  const bool starving = log_full && !log_wait.empty();
  const uint32_t open = transfer.open_epoch_writes();
  const bool resync_waits =
      link.resync_in_epoch > 0 &&
      (link.resync_drained || link.resync_in_epoch > limits.resync_requests / 2 ||
       link.resync_epoch_bytes >= kResyncUndurableMax / 2);
  if (open > 0 &&
      (open >= kEpochWritesMax || starving || (diskless() && transfer.closed_epochs() == 0) ||
       resync_waits || open * 4 >= limits.window_writes || now_us >= epoch_due_us())) {
    close_epoch(false);
  }
  flush_controls();
  if (now_us - link.sent_us >= limits.ping_interval_us) {
    FrameHeader ping;
    ping.type = FrameType::kPing;
    send_frame(ping, nullptr, false);
    link.sent_us = now_us;
  }
}

bool VolumeImpl::send_control(const std::string& json) {
  if (!link_active() || json.empty() || json.size() > kSendHeadroom / 2 || !link.controls.empty())
    return false;
  FrameHeader header;
  header.type = FrameType::kControl;
  header.payload_bytes = static_cast<uint32_t>(json.size());
  return send_frame(header, reinterpret_cast<const uint8_t*>(json.data()), false);
}

// The last primary is the source when a crash left marks between equal generations (rule 42 of the
// decision), so that it is kept. What becomes primary with force is UpToDate from then on, and so
// is a copy in step with it.
void VolumeImpl::set_peer_role(Role peer_role) {
  if (!link_active() || link.peer_role == peer_role) return;
  link.peer_role = peer_role;
  changed();
  if (peer_role != Role::kPrimary) return;
  const uint32_t before = sb().flags;
  link.peer_disk = DiskState::kUpToDate;
  if (link.state == Connection::kConnected) share_standing();
  const bool known = (peer_slot(link.slot).flags & kSlotPeerPrimary) != 0;
  if (known && sb().flags == before) return;
  peer_slot(link.slot).flags |= kSlotPeerPrimary;
  meta.commit([this](bool) { emit(EventKind::kDiskState, disk_text(disk_state())); });
}

}  // namespace tidemark
