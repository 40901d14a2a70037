// The link's life: the handshake's view of this node, how a link is prepared, started, kept and
// stopped.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

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
    flush = tracks_anybody();
    peer_slot(slot) = fresh;
    attachment->maps[slot] =
        std::make_unique<DirtyMap>(layout().geometry.volume_bytes, layout().geometry.chunk_bytes);
    attachment->maps[slot]->mark_all();
    commit = true;
  }
  // So may what a secondary passes on: nothing would say that it differs from the target's copy.
  const bool passes_on = params.side == SyncSide::kSource && role != Role::kPrimary;
  flush = flush || (passes_on && !diskless());
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
      emit_disk();
      done(0, "");
    }
  };
  if (flush) {
    flush_before_link([this, ready](bool ok) { ok ? meta.commit(ready) : ready(false); });
  } else if (commit) {
    meta.commit(ready);
  } else {
    ready(true);
  }
}

bool VolumeImpl::tracks_anybody() const {
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    if (tracked(slot)) return true;
  }
  return false;
}

// What came here without the log (R1) and is only in the cache of this disk is covered by the log
// of the primary that sent it, and by nothing for a node that was not known then or is given it
// now: power that goes after the two are in step would leave them different, and unmarked.
void VolumeImpl::flush_before_link(std::function<void(bool)> done) {
  link.epoch_flushing = true;
  link.flushed_before_link = std::move(done);
  link.epoch_flush_io = flush_of(IoTarget::kData, this, [](void* context, Io* io) {
    auto* self = static_cast<VolumeImpl*>(context);
    self->link.epoch_flushing = false;
    const std::function<void(bool)> then = std::exchange(self->link.flushed_before_link, {});
    if (io->result != 0) self->flush_failed("flush for a new peer", io->result);
    then(io->result == 0);
    if (self->link.stopping) self->link_check_idle();
  });
  host.submit(&link.epoch_flush_io);
}

bool VolumeImpl::link_start() {
  if (link.state != Connection::kPrepared) return false;
  link.heard_us = now_us;
  link.heard_now = true;
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
      commit_standing();
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

void VolumeImpl::commit_standing() {
  meta.commit([this](bool) { emit_disk(); });
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

// A volume that is polled looks at its link once in a ping interval. What passed beyond that was a
// pause of this node's, in which the peer may have said what is still to be read.
void VolumeImpl::forgive_pause(uint64_t now) {
  if (!link_active() || now <= now_us + limits.ping_interval_us) return;
  const uint64_t pause_us = now - now_us - limits.ping_interval_us;
  link.heard_us += pause_us;
  link.progress_us += pause_us;
}

std::string VolumeImpl::silence() const {
  const std::string time = std::to_string((now_us - link.heard_us) / 1000) + " ms";
  if (link.written.size() >= kWrittenMax) {
    return "the peer has read nothing for " + time + ", and " +
           std::to_string(link.written.size()) + " of its writes are to be acknowledged";
  }
  if (link.unread == 0) return "nothing was heard from the peer for " + time;
  return "the peer's frame does not end: " + std::to_string(link.unread) +
         " bytes of it are here, and in " + time + " came fewer than " +
         std::to_string(kHeardBytes);
}

void VolumeImpl::poll_link() {
  if (now_us - link.heard_us > limits.peer_timeout_us) {
    link_stop(silence());
    return;
  }
  if (transfer.open_epoch() > limits.epochs_max) {
    link_stop("the numbers of its epochs are used up: another link follows");
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
  retry_send();  // for which a piece had its turn
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
  commit_standing();
}

}  // namespace tidemark
