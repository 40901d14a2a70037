// Roles and generations: promote, demote, stop, and the generation that is made before anything
// completes apart (R7, R13, R18).
#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>

#include "core/volume_impl.h"

namespace tidemark {

namespace {
constexpr uint64_t kQuietTimeoutUs = 30'000'000;
}

uint64_t VolumeImpl::fresh_generation() {
  uint64_t generation = host.random_u64();
  while (generation <= kGenerationJustCreated || generation == sb().current)
    generation = host.random_u64();
  return generation;
}

// R7: before anything completes without a tracked peer, a generation exists that it has never
// shared. A slot whose B is set already counts from one that the peer had; a slot whose end of
// resync is in doubt (kSlotSyncEnding) may share the current one.
void VolumeImpl::ensure_apart_generation() {
  if (role != Role::kPrimary || meta.failed() || detaching()) return;
  bool needed = false;
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    const PeerSlot& peer = sb().slots[slot];
    if (!tracked(slot)) continue;
    // The peer that is linked may share the current one with a third node that was never met here.
    needed = needed || newly_primary;
    if (receiving(slot)) continue;
    needed = needed || peer.bitmap_generation == 0 ||
             (peer.flags & (kSlotSyncEnding | kSlotServed)) != 0;
  }
  if (!needed) return;
  ++gate_commits;
  const bool announce = make_generation([this](bool) {
    --gate_commits;
    drain_gate();
  });
  if (announce && link.state == Connection::kConnected) announce_generation();
}

// A generation that no absent slot's peer has; durable when `done` is called. `served`: the slot of
// the peer that works on this copy from now on, and shares it; it has chosen the `wanted` one.
bool VolumeImpl::make_generation(MetadataWriter::Done done, uint32_t served, uint64_t wanted) {
  const uint64_t shared = sb().current;
  newly_primary = false;
  unshared_slots = 0;
  // Whoever has it still is known to be behind by all that follow this copy, also where they never
  // met: a slot's B is told to that slot's peer alone.
  sb().push_history(shared);
  sb().current = wanted != kGenerationNone ? wanted : fresh_generation();
  bool announce = false;
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    PeerSlot& peer = peer_slot(slot);
    if (!tracked(slot)) continue;
    const bool in_doubt = (peer.flags & kSlotSyncEnding) != 0;
    if (slot == served) {
      peer.flags |= kSlotServed;
    } else if ((peer.flags & kSlotServed) != 0 && !receiving(slot)) {
      // What its disk had is B still; that it worked on this copy is over.
      sb().push_history(shared);
      peer.flags &= ~kSlotServed;
    }
    if (peer.bitmap_generation != 0 && (!in_doubt || receiving(slot))) {
      // It may be taking over what was offered, and its answer may get lost.
      if (in_doubt) sb().push_history(shared);
      continue;
    }
    if (peer.bitmap_generation != 0) sb().push_history(peer.bitmap_generation);
    peer.bitmap_generation = shared;
    peer.flags &= ~kSlotSyncEnding;
    announce = announce || receiving(slot);
  }
  changed();
  meta.commit(std::move(done));
  return announce;
}

bool VolumeImpl::gate_open() {
  if (detaching()) return false;  // until the peer's copy is known to be the newer one (R7)
  if (role != Role::kPrimary || meta.failed()) return true;
  if (link.state == Connection::kPrepared) return false;
  ensure_apart_generation();
  // Until the peer has taken over what was offered, a third node that comes back to it would find
  // nothing newer than its own. At the end of a resync it may count already, under the generation
  // that was offered before this one.
  const bool counts = link.state == Connection::kConnected ||
                      (link.announced != kGenerationNone && link.announced != sb().current);
  const bool offered = link_active() && link.finishing && counts;
  return gate_commits == 0 && !offered;
}

void VolumeImpl::when_quiet(bool wait_requests, uint64_t deadline_us, Done done) {
  quiet.push_back({wait_requests, deadline_us, std::move(done)});
}

void VolumeImpl::check_quiet() {
  const bool dead = meta.failed() && !diskless();
  while (!quiet.empty()) {
    Quiet& first = quiet.front();
    const bool still = (!first.wait_requests || requests_out == 0) && writes_active == 0 &&
                       link.writes_out == 0 && !sweeping &&
                       (diskless() || (meta.idle() && !log->transaction_wanted()));
    if (!still && now_us < first.deadline_us && !dead) return;
    Done done = std::move(first.done);
    quiet.pop_front();
    if (still) {
      done(0, "");
    } else {
      done(dead ? -EIO : -EBUSY, dead ? "the metadata can no longer be written"
                                      : std::to_string(requests_out) + " requests and " +
                                            std::to_string(writes_active) +
                                            " writes are still under way");
    }
  }
}

// R13: all bits on disk, the log empty, then the change; used with no write under way.
void VolumeImpl::settle_metadata(std::function<void()> change, MetadataWriter::Done done) {
  if (diskless()) {  // the metadata are left as they are: the peer's say that they are old
    change();
    changed();
    done(true);
    return;
  }
  meta.write_all_maps([this, change = std::move(change), done = std::move(done)](bool ok) mutable {
    if (!ok) {
      done(false);
      return;
    }
    sb().log_start_number = log->next_number();
    change();
    changed();
    meta.commit([this, done = std::move(done)](bool committed) {
      const Geometry& geometry = layout().geometry;
      const uint64_t extents =
          (geometry.volume_bytes + geometry.extent_bytes - 1) / geometry.extent_bytes;
      log = std::make_unique<ActivityLog>(geometry.log_extents, extents, sb().log_start_number);
      log->set_now(now_us);
      meta.set_log(log.get());
      done(committed);
    });
  });
}

// R7: what completed while a peer was linked, and was not durable there when the link broke, is
// marked under a generation that the peer shares as long as nothing was written since. Once this
// node is no primary any more nothing else tells the peer that its copy is not the newest (R18).
void VolumeImpl::settle_apart(std::function<void()> change, MetadataWriter::Done done) {
  bool left_behind = false;
  for (uint32_t slot = 0; slot < kMaxPeerSlots && !diskless(); ++slot) {
    const PeerSlot& peer = sb().slots[slot];
    const bool shares =
        peer.bitmap_generation == kGenerationNone || (peer.flags & kSlotSyncEnding) != 0;
    left_behind = left_behind || ((unshared_slots >> slot & 1) != 0 && tracked(slot) &&
                                  !receiving(slot) && shares);
  }
  unshared_slots = 0;
  if (!left_behind) {
    settle_metadata(std::move(change), std::move(done));
    return;
  }
  const bool announce =
      make_generation([this, change = std::move(change), done = std::move(done)](bool ok) mutable {
        if (ok) {
          settle_metadata(std::move(change), std::move(done));
        } else {
          done(false);
        }
      });
  if (announce && link.state == Connection::kConnected) announce_generation();
}

void VolumeImpl::promote(bool force, Done done) {
  if (role == Role::kPrimary) {
    done(0, "");
    return;
  }
  if (role_changing || stopped) {
    done(-EBUSY, "another role change is under way");
    return;
  }
  const DiskState disk = disk_state();
  if (disk == DiskState::kFailed || disk == DiskState::kDiskless) {
    done(-EIO, "the local disk has failed (" + fault.why +
                   "): repair or replace it, then start the daemon again");
    return;
  }
  if (link_active() && link.peer_role == Role::kPrimary) {
    done(-EPERM, "the peer is primary");
    return;
  }
  if (link.state == Connection::kPrepared ||
      (link_active() && link.params.side == SyncSide::kTarget &&
       link.state != Connection::kConnected)) {
    done(-EBUSY, "the local copy is being brought up to date by the peer");
    return;
  }
  if (disk != DiskState::kUpToDate && !force) {
    done(-EPERM, std::string("the local disk is ") + disk_text(disk) +
                     " and only an UpToDate one becomes primary without force");
    return;
  }
  role_changing = true;
  when_quiet(true, now_us + kQuietTimeoutUs,
             [this, force, done = std::move(done)](int error, const std::string& why) mutable {
               if (error != 0) {
                 role_changing = false;
                 done(error, why);
                 return;
               }
               const bool inconsistent =
                   (sb().flags & kNodeConsistent) == 0 || sb().current <= kGenerationJustCreated;
               const auto change = [this, force, inconsistent] {
                 sb().flags |= kNodePrimary;
                 for (PeerSlot& slot : sb().slots)
                   slot.flags &= ~kSlotPeerPrimary;  // the last primary is here
                 if (!force) return;
                 if (inconsistent) {
                   // What is here now is the truth from now on; nobody else has it.
                   sb().push_history(sb().current);
                   sb().current = fresh_generation();
                   for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
                     if (!tracked(slot)) continue;
                     peer_slot(slot).flags |= kSlotAllDirty;
                     if (attachment->maps[slot] != nullptr) attachment->maps[slot]->mark_all();
                   }
                 }
                 sb().flags |= kNodeConsistent | kNodeWasUpToDate;
                 sb().flags &= ~kNodeOutdated;
               };
               settle_metadata(change,
                               [this, force, inconsistent, done = std::move(done)](bool ok) {
                                 role_changing = false;
                                 if (!ok) {
                                   done(-EIO, "the metadata can no longer be written");
                                   return;
                                 }
                                 role = Role::kPrimary;
                                 newly_primary = !(force && inconsistent);
                                 if (link.state == Connection::kConnected) share_standing();
                                 changed();
                                 tell_role();
                                 emit(EventKind::kRole, role_text(role));
                                 emit_disk();
                                 done(0, "");
                                 if (force && inconsistent)
                                   link_stop("the data here were declared to be the truth");
                                 retry_send();
                               });
             });
}

void VolumeImpl::tell_role() {
  if (!link_active()) return;
  FrameHeader header;
  header.type = FrameType::kRole;
  header.offset = role == Role::kPrimary ? 1 : 0;
  send_or_queue(header);
}

void VolumeImpl::drain_peer(Done done) {
  if (!link_active() || transfer.empty()) {
    done(0, "");
    return;
  }
  close_epoch(true);
  drains.push_back({transfer.next_sequence(), std::move(done)});
}

void VolumeImpl::demote(Done done) {
  if (role == Role::kSecondary) {
    done(0, "");
    return;
  }
  if (role_changing || stopped) {
    done(-EBUSY, "another role change is under way");
    return;
  }
  if (requests_out != 0 && !unserved && (suspended || waits_for_peer())) {
    done(-EBUSY, "I/O is suspended with requests waiting: " +
                     (suspended ? suspend_reason : waiting_reason()));
    return;
  }
  // Requests are gone when the frontend is; what they wrote may still be on its way to the peer
  // (R18).
  when_quiet(true, now_us + kQuietTimeoutUs,
             [this, done = std::move(done)](int error, const std::string& why) mutable {
               if (error != 0) {
                 done(error, why);
                 return;
               }
               drain_peer([this, done = std::move(done)](int, const std::string&) mutable {
                 role_changing = true;
                 when_quiet(
                     true, now_us + kQuietTimeoutUs,
                     [this, done = std::move(done)](int again, const std::string& reason) mutable {
                       if (again != 0 || link.application_in_log != 0) {
                         role_changing = false;
                         again != 0 ? done(again, reason)
                                    : done(-EBUSY, "requests came while the peer was waited for");
                         return;
                       }
                       // Nothing is let in any more: it would use the log that is emptied now.
                       role = Role::kSecondary;
                       settle_apart([this] { sb().flags &= ~kNodePrimary; },
                                    [this, done = std::move(done)](bool ok) {
                                      role_changing = false;
                                      if (!ok) {
                                        role = Role::kPrimary;
                                        done(-EIO, "the metadata can no longer be written");
                                        return;
                                      }
                                      changed();
                                      tell_role();
                                      emit(EventKind::kRole, role_text(role));
                                      done(0, "");
                                    });
                     });
               });
             });
}

void VolumeImpl::invalidate(uint32_t slot, Done done) {
  if (slot >= kMaxPeerSlots || !tracked(slot)) {
    done(-ENOENT, "no data were ever shared with that peer");
    return;
  }
  if (role == Role::kPrimary || role_changing) {
    done(-EPERM, "a primary's copy cannot be invalidated: make it secondary first");
    return;
  }
  if (link.state != Connection::kStandAlone || !link.idle) {
    done(-EBUSY, "the link must be down first");
    return;
  }
  attachment->maps[slot]->mark_all();
  peer_slot(slot).flags |= kSlotAllDirty;
  sb().flags &= ~(kNodeConsistent | kNodeWasUpToDate);
  changed();
  meta.commit([this, done = std::move(done)](bool ok) {
    emit_disk();
    done(ok ? 0 : -EIO, ok ? "" : "the metadata can no longer be written");
  });
}

// A clean stop. With requests still under way (a forced one) the log is left as it is and the next
// attach replays it.
void VolumeImpl::stop(Done done) {
  if (stopped) {
    done(0, "");
    return;
  }
  drain_peer([this, done = std::move(done)](int, const std::string&) mutable {
    link_stop("the volume is being stopped");
    stopped = true;
    drop_suspended();
    // What was let in before runs to its end.
    when_quiet(true, now_us + kQuietTimeoutUs,
               [this, done = std::move(done)](int error, const std::string& why) mutable {
                 role_changing = true;
                 if (error != 0) {
                   done(error, why);
                   return;
                 }
                 const auto change = [this] { sb().flags &= ~(kNodePrimary | kNodeAttached); };
                 // kNodeCrashedPrimary stays until a peer has been told (rule 40 of the decision).
                 settle_apart(change, [done = std::move(done)](bool ok) {
                   done(ok ? 0 : -EIO, ok ? "" : "the metadata can no longer be written");
                 });
               });
  });
}

void VolumeImpl::outdate_peer(Done done) {
  if (role != Role::kPrimary || link.state != Connection::kConnected) {
    done(0, "");
    return;
  }
  drain_peer([this, done = std::move(done)](int, const std::string&) mutable {
    if (link.state != Connection::kConnected) {
      done(-ENOTCONN, "the link went down");
      return;
    }
    // A primary without a disk that can be written outdates nobody: the peer's copy has everything
    // that it will ever have.
    if (diskless() || detaching() || broken()) {
      done(0, "");
      return;
    }
    if (link.outdate_done) {
      done(-EALREADY, "the peer is being told already");
      return;
    }
    link.outdate_done = std::move(done);
    FrameHeader header;
    header.type = FrameType::kOutdate;
    send_or_queue(header);
  });
}

}  // namespace tidemark
