// Resync: exchanging the maps, copying dirty chunks from the source, and its end on both sides.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/run_length.h"
#include "core/volume_impl.h"

namespace tidemark {

namespace {

bool all_zero(const uint8_t* bytes, size_t length) {
  // A range whose first bytes are zero and which equals itself shifted by one word is all zeroes.
  return length >= 16 && std::all_of(bytes, bytes + 16, [](uint8_t byte) { return byte == 0; }) &&
         std::memcmp(bytes, bytes + 16, length - 16) == 0;
}

}  // namespace

void VolumeImpl::sync_start() {
  link.sync_started_us = now_us;
  if (link.params.full) {
    link.map_sent = true;
    link.map_received = true;
    maps_exchanged();
    return;
  }
  send_maps();
}

// --- maps ---

void VolumeImpl::send_maps() {
  const DirtyMap* map = link_map();
  while (link.state == Connection::kExchangingMaps && !link.map_sent) {
    if (host.send_space() < kFrameHeaderBytes + kMapPieceBytes + kSendHeadroom ||
        !link.controls.empty())
      return;
    std::vector<uint8_t> code;
    const uint64_t next = encode_runs(*map, link.map_next, kMapPieceBytes, &code);
    FrameHeader header;
    header.type = FrameType::kMap;
    header.offset = link.map_next;
    header.payload_bytes = static_cast<uint32_t>(code.size());
    if (next >= map->chunk_count()) header.flags |= kFrameLast;
    if (!send_frame(header, code.data(), false)) return;
    link.progress_us = now_us;
    link.map_next = next;
    link.map_sent = next >= map->chunk_count();
  }
  if (link.state == Connection::kExchangingMaps && link.map_sent && link.map_received)
    maps_exchanged();
}

VolumeImpl::Handled VolumeImpl::receive_map(const FrameHeader& header,
                                            std::span<const uint8_t> payload) {
  if (link.state != Connection::kExchangingMaps || link.map_received ||
      header.offset != link.map_receive_next) {
    fail_frame(header, "no map is expected here");
    return Handled::kFailed;
  }
  DirtyMap* map = link_map();
  const std::optional<uint64_t> next = apply_runs(payload, header.offset, map);
  const bool last = (header.flags & kFrameLast) != 0;
  if (!next || *next == header.offset || (last != (*next >= map->chunk_count()))) {
    fail_frame(header, "its runs do not fit the map");
    return Handled::kFailed;
  }
  link.map_receive_next = *next;
  link.map_received = last;
  send_maps();
  if (link.state == Connection::kExchangingMaps && link.map_sent && link.map_received)
    maps_exchanged();
  return Handled::kYes;
}

void VolumeImpl::maps_exchanged() {
  link.state =
      link.params.side == SyncSide::kSource ? Connection::kSyncSource : Connection::kSyncTarget;
  changed();
  emit(EventKind::kSyncStarted, std::to_string(link_map()->count()) + " chunks");
  emit(EventKind::kLinkState, connection_text(link.state));
}

// --- source ---

void VolumeImpl::pump_resync() {
  if (link.state != Connection::kSyncSource || link.finishing) return;
  const bool shared =
      link.application_in_log != 0 ||
      (link.application_us != 0 && now_us - link.application_us < kApplicationRecentUs);
  link.pace.turn(now_us, shared, link.application_ahead);
  for (size_t index = 0; index < link.sending.size();) {
    SyncTask* task = link.sending[index];
    task_step(task);
    if (link.state != Connection::kSyncSource) return;
    if (index < link.sending.size() && link.sending[index] == task) ++index;
  }
  if (link.unread_only && now_us >= link.unread_retry_us) {
    link.unread_only = false;
    link.unreadable->clear_all();
  }
  DirtyMap* map = link_map();
  link.resync_drained = false;
  while (!link.unread_only && link.sending.size() < kResyncReadsMax &&
         link.tasks.size() < limits.resync_requests && link.resync_bytes < kResyncUndurableMax &&
         link.pace.allows(link.pace.piece_bytes())) {
    const std::optional<ChunkRange> run = next_run();
    if (!run) {
      link.resync_drained = link.sending.empty();
      if (link.cursor == 0 || !link.tasks.empty()) break;
      link.cursor = 0;  // another pass, for what was marked behind the first
      continue;
    }
    link.cursor = run->first + run->count;
    link.tasks.emplace_back();
    SyncTask& task = link.tasks.back();
    task.volume = this;
    task.range = map->bytes_of(*run);
    task.next = task.range.offset;
    link.sending.push_back(&task);
    task_step(&task);
  }
  link.pace.turned(now_us);
  if (link.tasks.empty() && link.cursor == 0) wait_for_unread();
  check_finished();
}

// What to copy next, from the cursor on.
std::optional<ChunkRange> VolumeImpl::next_run() {
  DirtyMap* map = link_map();
  const uint64_t chunks = std::max<uint64_t>(1, kResyncTaskBytes / map->chunk_bytes());
  std::optional<ChunkRange> run = map->next_dirty_run(link.cursor, chunks);
  if (!link.suspects) return run;
  while (run && link.unreadable->test(run->first)) {
    const ChunkRange skipped = *link.unreadable->next_dirty_run(run->first, map->chunk_count());
    run = map->next_dirty_run(skipped.first + skipped.count, chunks);
  }
  if (!run) return run;
  const std::optional<uint64_t> suspect = link.suspects->next_dirty(run->first);
  if (suspect && *suspect == run->first) {
    run->count = 1;
  } else if (suspect) {
    run->count = std::min(run->count, *suspect - run->first);
  }
  return run;
}

// The chunk stays marked, and the target Inconsistent; the rest is copied. What was sent of the
// task is sent again with its chunks one by one.
void VolumeImpl::task_unread(SyncTask* task) {
  ++counters.disk_errors;
  if (!link.unreadable || link.unreadable->count() == 0) {  // the first of a pass tells
    emit(EventKind::kIoError, "reading " + std::to_string(task->piece.length) + " bytes at " +
                                  std::to_string(task->piece.offset) +
                                  " for the resync failed: " + std::strerror(-task->io.result));
  }
  if (!link.suspects) {
    const Geometry& geometry = layout().geometry;
    link.suspects = std::make_unique<DirtyMap>(geometry.volume_bytes, geometry.chunk_bytes);
    link.unreadable = std::make_unique<DirtyMap>(geometry.volume_bytes, geometry.chunk_bytes);
  }
  if (link_map()->outward(task->range).count == 1) link.unreadable->mark(task->range);
  link.suspects->mark(task->range);
  host.buffer_put(task->buffer, task->buffer_bytes);
  task->buffer = nullptr;
  link.pace.end(task->piece.length);
  task_sent(task);
  task->step = SyncTask::Step::kIdle;
  task->voided = true;
  task->range.length = task->next - task->range.offset;
  RangeLock* lock = &task->lock;
  if (task->durable_bytes != task->range.length) {
    locks.release(lock);  // it ends with what is under way
    return;
  }
  lock->granted = [](void*, RangeLock*) {};
  std::list<SyncTask> ended;
  const auto it = std::find_if(link.tasks.begin(), link.tasks.end(),
                               [task](const SyncTask& one) { return &one == task; });
  ended.splice(ended.end(), link.tasks, it);
  locks.release(lock);
}

void VolumeImpl::wait_for_unread() {
  if (!link.unreadable || link.unread_only || link_map()->count() == 0) return;
  link.unread_only = true;
  if (now_us < link.unread_retry_us) return;
  link.unread_pause_us = std::clamp(2 * link.unread_pause_us, kUnreadPauseMinUs, kUnreadPauseMaxUs);
  link.unread_retry_us = now_us + link.unread_pause_us;
  emit(EventKind::kIoError, std::to_string(link.unreadable->count()) +
                                " chunks could not be read here: the resync cannot end");
}

// A piece: lock it against overlapping writes, read it, queue it, unlock.
void VolumeImpl::task_step(SyncTask* task) {
  if (task->step == SyncTask::Step::kWaiting) {
    task_send(task);
    return;
  }
  if (task->step != SyncTask::Step::kIdle || task->next >= task->range.end()) return;
  const uint64_t bytes = std::min(link.pace.piece_bytes(), task->range.end() - task->next);
  if (!link.pace.allows(bytes)) return;
  task->piece = {task->next, bytes};
  task->buffer_bytes = task->piece.length;
  task->buffer = host.buffer_get(task->buffer_bytes);
  if (task->buffer == nullptr) return;  // the next poll tries again
  link.pace.begin(bytes);
  task->step = SyncTask::Step::kLocking;
  task->lock = RangeLock{};
  task->lock.range = align_out(task->piece);
  task->lock.exclusive = false;
  task->lock.context = task;
  task->lock.granted = [](void* context, RangeLock*) {
    SyncTask* self = static_cast<SyncTask*>(context);
    self->volume->task_read(self);
  };
  if (locks.acquire(&task->lock)) task_read(task);
}

void VolumeImpl::task_read(SyncTask* task) {
  task->step = SyncTask::Step::kReading;
  task->io = Io{};
  task->io.kind = IoKind::kRead;
  task->io.offset = task->piece.offset;
  task->io.length = task->piece.length;
  task->io.buffer = task->buffer;
  task->io.context = task;
  task->io.done = [](void* context, Io*) {
    SyncTask* self = static_cast<SyncTask*>(context);
    self->step = SyncTask::Step::kWaiting;
    self->volume->task_send(self);
  };
  host.submit(&task->io);
}

void VolumeImpl::task_send(SyncTask* task) {
  if (link.state != Connection::kSyncSource) {
    link_check_idle();
    return;
  }
  if (task->io.result != 0) {
    task_unread(task);
    return;
  }
  const bool zero = all_zero(task->buffer, task->piece.length);
  // Resync leaves half of what room there is to the application, until that leaves it none for too
  // long: a write that overlaps waits for the piece.
  const uint64_t share = resync_first() ? 1 : 2;
  if (!room_for(zero ? 0 : share * task->piece.length)) {
    if (link.piece_waits == nullptr) {
      link.piece_waits = task;
      link.piece_waits_us = now_us;
    }
    return;
  }
  if (link.piece_waits == task) link.piece_waits = nullptr;
  if (transfer.open_epoch_writes() == 0) link.epoch_opened_us = now_us;
  FrameHeader header;
  header.type = zero ? FrameType::kZeroes : FrameType::kData;
  header.flags = kFrameResync | kFrameAckWritten;  // for the pace; the bits wait for the epoch
  header.sequence = transfer.next_sequence();
  header.epoch = transfer.open_epoch();
  header.offset = task->piece.offset;
  header.length = static_cast<uint32_t>(task->piece.length);
  header.payload_bytes = zero ? 0 : header.length;
  check(send_frame(header, task->buffer, true), "a resync write was sent without room");
  transfer.append(task->piece, true, task);
  link.pace.sent(header.sequence);
  ++link.resync_in_log;
  ++link.resync_in_epoch;
  link.resync_bytes += header.length;
  link.resync_epoch_bytes += header.length;
  counters.resync_sent_bytes += header.length;
  counters.resync_wire_bytes += header.payload_bytes;
  host.buffer_put(task->buffer, task->buffer_bytes);
  task->buffer = nullptr;
  task->next = task->piece.end();
  task->step = SyncTask::Step::kIdle;
  if (task->next == task->range.end()) {
    task_sent(task);
    link.sync_chunks_sent += link_map()->outward(task->range).count;
  }
  locks.release(&task->lock);
}

bool VolumeImpl::resync_first() const {
  return link.piece_waits != nullptr && now_us - link.piece_waits_us >= kResyncPatienceUs;
}

// What is left of it is acknowledgements.
void VolumeImpl::task_sent(SyncTask* task) { std::erase(link.sending, task); }

// R9: a bit is cleared when exactly what was read is durable there, and nothing was marked since.
// Not only when the whole run is: where pieces take long, that is long, and would be copied again
// after a break. They become durable in their order: what is ahead of this one in its first chunk
// is.
void VolumeImpl::task_durable(SyncTask* task, ByteRange range, bool failed) {
  task->voided = task->voided || failed;
  task->durable_bytes += range.length;
  if (!task->voided) {
    DirtyMap* map = link_map();
    const uint64_t before = map->dirty_bytes();
    const uint64_t begin = map->bytes_of(map->outward(range)).offset;
    map->clear({begin, range.end() - begin});
    link.sync_done_bytes += before - map->dirty_bytes();
  }
  if (task->durable_bytes == task->range.length) end_task(task);
}

void VolumeImpl::end_task(SyncTask* task) {
  if (task->buffer != nullptr) host.buffer_put(task->buffer, task->buffer_bytes);
  for (auto it = link.tasks.begin(); it != link.tasks.end(); ++it) {
    if (&*it == task) {
      link.tasks.erase(it);
      return;
    }
  }
}

void VolumeImpl::void_tasks(ByteRange range) {
  link.unread_only = false;  // there may be something to be read again
  for (SyncTask& task : link.tasks)
    task.voided =
        task.voided || task.range.overlaps(link_map()->bytes_of(link_map()->outward(range)));
}

// The link is gone: tasks whose read is under way stay until it ends.
bool VolumeImpl::drop_tasks() {
  // Releasing a lock may start what waited for it, and end up here again: take the tasks off the
  // list first, and let none of them start any more.
  std::list<SyncTask> dropped;
  link.sending.clear();
  for (auto it = link.tasks.begin(); it != link.tasks.end();) {
    const auto task = it++;
    if (task->step == SyncTask::Step::kReading) continue;
    task->lock.granted = [](void*, RangeLock*) {};
    dropped.splice(dropped.end(), link.tasks, task);
  }
  for (SyncTask& task : dropped) {
    if (task.step == SyncTask::Step::kLocking || task.step == SyncTask::Step::kWaiting) {
      locks.release(&task.lock);
    }
  }
  for (const SyncTask& task : dropped) {
    if (task.buffer != nullptr) host.buffer_put(task.buffer, task.buffer_bytes);
  }
  return link.tasks.empty();
}

void VolumeImpl::check_finished() {
  if (link.state != Connection::kSyncSource || link.finishing) return;
  if (link_map()->count() != 0 || !link.tasks.empty() || link.resync_in_log != 0) return;
  announce_generation();
}

// The end, at the source: offer the generation; the target takes it over durably; only then B is
// forgotten. Between the offer and the answer the slot says so durably: if the link or this node
// goes away in between, the target may share the generation (R7).
void VolumeImpl::announce_generation() {
  if (link.finishing) return;
  link.finishing = true;
  const uint32_t serial = link.serial;
  peer_slot(link.slot).flags |= kSlotSyncEnding;
  // Before the target says the same of this node: if the answer is lost, one of the two counts.
  if (link.state == Connection::kSyncSource) peer_slot(link.slot).flags &= ~kSlotPeerPrimary;
  const uint64_t offered = sb().current;
  meta.commit([this, serial, offered](bool ok) {
    if (link.serial != serial) return;
    if (!ok) {
      // The offer may not be made (R7): the target keeps what it got, and its marks.
      link_stop("the metadata can no longer be written here: the resync cannot end");
      return;
    }
    if (link.state == Connection::kSyncSource && link_map()->count() != 0) {
      link.finishing =
          false;  // something was marked meanwhile: not finished (no mark is left behind)
      return;
    }
    if (sb().current != offered) {
      // One was made meanwhile, and its offer is to be written down, too.
      link.finishing = false;
      announce_generation();
      return;
    }
    link.announced = offered;
    FrameHeader header;
    header.type = FrameType::kSyncDone;
    header.offset = link.announced;
    header.sequence = transfer.next_sequence() - 1;
    send_or_queue(header);
  });
}

VolumeImpl::Handled VolumeImpl::receive_sync_done_ack(const FrameHeader& header) {
  if (link.announced == 0 || header.offset != link.announced) {
    fail_frame(header, "that generation was not offered");
    return Handled::kFailed;
  }
  PeerSlot& peer = peer_slot(link.slot);
  if (peer.bitmap_generation != link.announced) sb().push_history(peer.bitmap_generation);
  const bool newer =
      sb().current != link.announced;  // a generation was made since, because of another slot
  peer.bitmap_generation = newer ? link.announced : kGenerationNone;
  peer.flags &= ~(kSlotSyncEnding | kSlotAllDirty | kSlotFullSync | kSlotPeerOutdated);
  peer.last_generation = link.announced;
  unshared_slots &= ~(1u << link.slot);
  sb().flags &= ~kNodeCrashedPrimary;
  link.announced = 0;
  link.finishing = false;
  // What the target took over.
  link.peer_disk = role == Role::kPrimary ? DiskState::kUpToDate : disk_state();
  changed();
  const bool was_sync = link.state == Connection::kSyncSource;
  link.state = Connection::kConnected;
  meta.commit([](bool) {});
  if (was_sync) {
    emit(EventKind::kSyncFinished, std::to_string(link.sync_chunks_sent) + " chunks");
    emit(EventKind::kLinkState, connection_text(link.state));
  }
  if (newer) announce_generation();
  if (link_map()->count() != 0) {
    link_stop("chunks were marked while the resync ended: another one follows");
  } else {
    drain_gate();
  }
  return link_active() ? Handled::kYes : Handled::kFailed;
}

// --- target ---

// The target clears its own bits as ranges become durable here, so that an interrupted resync
// resumes where it was.
void VolumeImpl::target_durable(const std::vector<ByteRange>& ranges) {
  DirtyMap* map = link_map();
  for (const ByteRange& range : ranges) {
    uint64_t begin = range.offset;
    uint64_t end = range.end();
    auto it = link.target_done.lower_bound(begin);
    if (it != link.target_done.begin() && std::prev(it)->second >= begin) --it;
    while (it != link.target_done.end() && it->first <= end) {
      begin = std::min(begin, it->first);
      end = std::max(end, it->second);
      it = link.target_done.erase(it);
    }
    const ChunkRange whole = map->inward({begin, end - begin});
    if (whole.count == 0) {
      link.target_done[begin] = end;
      continue;
    }
    const uint64_t before = map->dirty_bytes();
    map->clear_chunks(whole);
    link.sync_done_bytes += before - map->dirty_bytes();
    const ByteRange cleared = map->bytes_of(whole);
    if (begin < cleared.offset) link.target_done[begin] = cleared.offset;
    if (cleared.end() < end) link.target_done[cleared.end()] = end;
  }
}

VolumeImpl::Handled VolumeImpl::receive_sync_done(const FrameHeader& header) {
  const bool target = link.state == Connection::kSyncTarget;
  if ((!target && link.state != Connection::kConnected) || role == Role::kPrimary ||
      link.target_finishing || header.offset <= kGenerationJustCreated ||
      header.sequence + 1 != link.expect_sequence) {
    fail_frame(header, "no end of a resync is expected here");
    return Handled::kFailed;
  }
  // R17: what the resync wrote is durable, which cleared its marks. Its generation is taken over
  // now, and not on the source's word alone.
  if (target && link_map()->count() != 0) {
    fail_frame(header, std::to_string(link_map()->count()) +
                           " chunks of the resync did not come, or are not durable yet");
    return Handled::kFailed;
  }
  link.target_finishing = true;
  if (target) {
    // The source's past, and what becomes its past with the answer: a third node may still be
    // there.
    sb().history = link.params.peer_history;
    sb().push_history(link.params.peer_bitmap);
  }
  if (sb().current != header.offset) {
    sb().push_history(sb().current);
    // The source made a new one since it told its past, and a third node may have that one still.
    if (target && link.params.peer_current != header.offset)
      sb().push_history(link.params.peer_current);
    // What an older primary wrote is not all that is here any more: I/O that waits there since a
    // crash is stale (R18).
    for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
      if (slot == link.slot) continue;
      PeerSlot& third = peer_slot(slot);
      third.flags &= ~kSlotPeerPrimary;
      // It shares the one before, and all that came here since is marked for it (R8).
      if (!target && tracked(slot) && third.bitmap_generation == kGenerationNone &&
          (third.flags & (kSlotSyncEnding | kSlotServed)) == 0) {
        third.bitmap_generation = sb().current;
      }
    }
  }
  sb().current = header.offset;
  sb().flags |= kNodeConsistent;
  sb().flags &= ~kNodeCrashedPrimary;
  // R18: a copy of what is not the newest is not the newest either.
  set_standing(link.peer_role == Role::kPrimary ? DiskState::kUpToDate : link.peer_disk);
  PeerSlot& peer = peer_slot(link.slot);
  peer.bitmap_generation = kGenerationNone;
  peer.last_generation = header.offset;
  peer.flags &= ~(kSlotFullSync | kSlotSyncEnding);
  // Clears reach the disk late: after a crash it must be known whose content this is (rule 42).
  if (target) peer.flags |= kSlotPeerPrimary;
  if (link_map()->count() == 0) peer.flags &= ~kSlotAllDirty;
  link.target_done.clear();
  fault.rejoining = false;
  changed();
  const uint32_t serial = link.serial;
  const uint64_t generation = header.offset;
  meta.commit([this, serial, generation, target](bool ok) {
    link.target_finishing = false;
    emit_disk();
    if (link.serial != serial) {
      link_check_idle();
      return;
    }
    if (!ok) {
      link_stop("the metadata can no longer be written");
      return;
    }
    link.state = Connection::kConnected;
    if (link.peer_role == Role::kPrimary) {  // it may have become that, with force, since then
      const uint32_t before = sb().flags;
      share_standing();
      if (sb().flags != before) {
        commit_standing();
      }
    }
    changed();
    FrameHeader ack;
    ack.type = FrameType::kSyncDoneAck;
    ack.offset = generation;
    send_or_queue(ack);
    if (target) {
      emit(EventKind::kSyncFinished);
      emit(EventKind::kLinkState, connection_text(link.state));
    }
  });
  return Handled::kYes;
}

}  // namespace tidemark
