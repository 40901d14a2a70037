// Frames of the peer: its writes, epochs and acknowledgements.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/crc32c.h"
#include "core/volume_impl.h"

namespace tidemark {

void VolumeImpl::fail_frame(const FrameHeader& header, const std::string& what) {
  link_stop(std::string("the peer's ") + frame_type_text(header.type) + " frame (sequence " +
            std::to_string(header.sequence) + ", offset " + std::to_string(header.offset) +
            ", length " + std::to_string(header.length) + ", epoch " +
            std::to_string(header.epoch) + ") cannot be right: " + what);
}

size_t VolumeImpl::link_input(std::span<const uint8_t> bytes) {
  link.input_wait = InputWait::kNothing;
  size_t used = 0;
  for (;;) {
    if (holds_input()) {
      wait_for(InputWait::kState);
      break;
    }
    if (!link_active()) break;
    const std::span<const uint8_t> rest = bytes.subspan(used);
    if (rest.size() < kFrameHeaderBytes) break;
    FrameHeader header;
    const FrameError error = parse_frame_header(rest.first<kFrameHeaderBytes>(), &header);
    if (error != FrameError::kNone) {
      link_stop(std::string("the peer sent something that is no frame: ") +
                frame_error_text(error));
      break;
    }
    if (header.incarnation != link.params.incarnation) {
      fail_frame(header, "it belongs to another link");  // R16
      break;
    }
    const size_t frame_bytes = kFrameHeaderBytes + size_t{header.payload_bytes};
    if (rest.size() < frame_bytes) break;
    const std::span<const uint8_t> payload = rest.subspan(kFrameHeaderBytes, header.payload_bytes);
    if (handle(header, payload) != Handled::kYes) break;
    used += frame_bytes;
    counters.received_bytes += frame_bytes;
  }
  if (link.state == Connection::kPrepared) return 0;
  if (!link_active()) {
    link.input_wait = InputWait::kNothing;
    return bytes.size();  // the old link's remaining bytes are discarded (R16)
  }
  link.unread = bytes.size() - used;
  if (used != 0 || is_heard(link.input_wait != InputWait::kNothing)) {
    link.heard_now = true;
    link.heard = link.unread;
  }
  return used;
}

bool VolumeImpl::holds_input() const {
  return link.state == Connection::kPrepared || link.hard_wait || role_changing;
}

bool VolumeImpl::has_write_room() const {
  return link.writes_out < kReceivedWritesMax && link.written.size() < kWrittenMax;
}

bool VolumeImpl::has_epoch_room() const { return link.epochs.size() < kReceivedEpochsMax; }

VolumeImpl::Handled VolumeImpl::wait_for(InputWait what) {
  link.input_wait = what;
  return Handled::kLater;
}

bool VolumeImpl::takes_input() const {
  if (holds_input()) return false;
  switch (link.input_wait) {
    case InputWait::kNothing:
    case InputWait::kMemory:
      return false;
    case InputWait::kState:
      return true;
    case InputWait::kWriteRoom:
      return has_write_room();
    case InputWait::kEpochRoom:
      return has_epoch_room();
  }
  return false;
}

// Of bytes that no frame was finished by. A byte now and then is no sign of life: the volume has
// only this link.
bool VolumeImpl::is_heard(bool waits_here) const {
  if (!waits_here) return link.unread >= link.heard + kHeardBytes;
  // What waits here keeps the peer's pings from being heard once the ring is full: that is this
  // node's silence, not the peer's, unless it is for the peer to read.
  return link.unread != 0 && link.written.size() < kWrittenMax;
}

VolumeImpl::Handled VolumeImpl::handle(const FrameHeader& header,
                                       std::span<const uint8_t> payload) {
  const bool is_write = header.type == FrameType::kData || header.type == FrameType::kZeroes ||
                        header.type == FrameType::kDiscard;
  if (is_write && !has_write_room()) return wait_for(InputWait::kWriteRoom);
  if ((is_write || header.type == FrameType::kBarrier) && !has_epoch_room())
    return wait_for(InputWait::kEpochRoom);
  if (link.controls.size() >= kControlsMax) {
    fail_frame(header, std::to_string(link.controls.size()) +
                           " answers to earlier frames wait because the peer does not read");
    return Handled::kFailed;
  }
  const uint32_t crc = payload.empty() ? 0 : crc32c(0, payload.data(), payload.size());
  if (crc != header.payload_crc) {
    fail_frame(header, "its payload does not match its checksum");
    return Handled::kFailed;
  }
  switch (header.type) {
    case FrameType::kData:
    case FrameType::kZeroes:
    case FrameType::kDiscard:
      return receive_write(header, payload);
    case FrameType::kBarrier:
      return receive_barrier(header);
    case FrameType::kWritten: {
      std::vector<WrittenRange> ranges;
      if (!parse_written(payload, &ranges)) {
        fail_frame(header, "its payload is no list of ranges");
        return Handled::kFailed;
      }
      acknowledge_written(header, ranges);
      break;
    }
    case FrameType::kEpochDone:
      if (!transfer.acknowledge_epoch(header.epoch)) {
        fail_frame(header, "that epoch was not closed here");
        return Handled::kFailed;
      }
      acknowledge_epoch(header.epoch);
      break;
    case FrameType::kMap:
      return receive_map(header, payload);
    case FrameType::kSyncDone:
      return receive_sync_done(header);
    case FrameType::kSyncDoneAck:
      return receive_sync_done_ack(header);
    case FrameType::kControl:
      emit(EventKind::kControl,
           std::string(reinterpret_cast<const char*>(payload.data()), payload.size()));
      break;
    case FrameType::kPing:
      break;
    case FrameType::kOutdate: {
      if (role == Role::kPrimary) {
        fail_frame(header, "a primary cannot be outdated");
        return Handled::kFailed;
      }
      if (link.outdating) {
        fail_frame(header, "the one before was not answered yet");
        return Handled::kFailed;
      }
      link.outdating = true;
      sb().flags |= kNodeOutdated;
      changed();
      const uint32_t serial = link.serial;
      meta.commit([this, serial](bool ok) {
        emit_disk();
        if (link.serial != serial) return;
        link.outdating = false;
        if (!ok) return;
        FrameHeader ack;
        ack.type = FrameType::kOutdateAck;
        send_or_queue(ack);
      });
      break;
    }
    case FrameType::kOutdateAck:
      if (!link.outdate_done) {
        fail_frame(header, "nobody asked for it");
        return Handled::kFailed;
      }
      peer_slot(link.slot).flags |= kSlotPeerOutdated;
      meta.commit([done = std::exchange(link.outdate_done, nullptr)](bool) { done(0, ""); });
      break;
    case FrameType::kRole:
      if (header.offset > 1 || (header.offset == 1 && role == Role::kPrimary)) {
        fail_frame(header, header.offset > 1 ? "no such role" : "both nodes would be primary");
        return Handled::kFailed;
      }
      set_peer_role(header.offset == 1 ? Role::kPrimary : Role::kSecondary);
      emit(EventKind::kLinkState, connection_text(link.state));
      break;
    case FrameType::kDisk:
      return receive_disk(header);
    case FrameType::kDetach:
      return receive_detach(header);
    case FrameType::kDetachAck:
      if (!detaching() || header.offset != fault.generation) {
        fail_frame(header, "nobody asked for it");
        return Handled::kFailed;
      }
      detach_acknowledged();
      break;
    case FrameType::kRead:
      return receive_read(header);
    case FrameType::kReadReply:
    case FrameType::kReadFailed:
      return receive_read_reply(header, payload);
    default:
      fail_frame(header, "it does not belong here");
      return Handled::kFailed;
  }
  return link_active() ? Handled::kYes : Handled::kFailed;
}

VolumeImpl::Handled VolumeImpl::receive_write(const FrameHeader& header,
                                              std::span<const uint8_t> payload) {
  const auto wrong = [&](const std::string& what) {
    fail_frame(header, what);
    return Handled::kFailed;
  };
  const bool resync = (header.flags & kFrameResync) != 0;
  const bool data = header.type == FrameType::kData;
  const uint64_t size = layout().geometry.volume_bytes;
  if (header.length == 0 || header.length % kSectorSize != 0 || header.offset % kSectorSize != 0) {
    return wrong("offset and length must be multiples of 512 and not empty");
  }
  if (header.offset > size || header.length > size - header.offset) {
    return wrong("it reaches past the volume's end at " + std::to_string(size));
  }
  if (data ? payload.size() != header.length : !payload.empty())
    return wrong("payload and length differ");
  if (!data && header.length > kZeroPieceMax)
    return wrong("longer than " + std::to_string(kZeroPieceMax));
  if (header.sequence != link.expect_sequence)
    return wrong("expected sequence " + std::to_string(link.expect_sequence));
  if (header.epoch != link.receive_epoch)
    return wrong("expected epoch " + std::to_string(link.receive_epoch));
  if (resync ? link.state != Connection::kSyncTarget : role == Role::kPrimary) {
    return wrong(resync ? "this node is not the target of a resync" : "this node is primary");
  }
  if (link.epoch_writes >= kTransferEntries) {
    return wrong(
        std::to_string(link.epoch_writes) +
        " writes before it are not in a closed and durable epoch: more than a peer may have");
  }
  uint8_t* buffer = nullptr;
  if (data) {
    buffer = host.buffer_get(header.length);
    if (buffer == nullptr) return wait_for(InputWait::kMemory);
    std::memcpy(buffer, payload.data(), header.length);
  }
  ++link.expect_sequence;
  if (link.epochs.empty() || link.epochs.back().number != header.epoch) {
    ReceivedEpoch epoch;
    epoch.number = header.epoch;
    link.epochs.push_back(std::move(epoch));
  }
  ++link.epochs.back().started;
  ++link.epoch_writes;
  ++link.writes_out;
  if (resync) counters.resync_received_bytes += header.length;

  Write* write = new_write();
  write->origin = resync ? Origin::kResync : Origin::kReplicated;
  write->kind = data                                 ? IoKind::kWrite
                : header.type == FrameType::kDiscard ? IoKind::kDiscard
                                                     : IoKind::kWriteZeroes;
  write->range = {header.offset, header.length};
  write->data = buffer;
  write->data_bytes = data ? header.length : 0;
  write->sequence = header.sequence;
  write->epoch = header.epoch;
  write->acknowledge = (header.flags & (kFrameAckWritten | kFrameAckReceived)) != 0;
  write->link_serial = link.serial;
  begin(write);
  return Handled::kYes;
}

void VolumeImpl::received_write_done(Write* write) {
  --link.writes_out;
  if (write->error == 0 && broken()) write->error = -EIO;  // nothing here counts any more
  const bool current = write->link_serial == link.serial;
  if (current) {
    for (ReceivedEpoch& epoch : link.epochs) {
      if (epoch.number != write->epoch) continue;
      ++epoch.finished;
      epoch.failed = epoch.failed || write->error != 0;
      if (write->origin == Origin::kResync && write->error == 0)
        epoch.resynced.push_back(write->range);
      break;
    }
    if (write->acknowledge || write->error != 0)
      link.written.push_back({write->sequence, 1, write->error});
  }
  if (write->error != 0 && !broken())
    disk_fault(Fault::kWrite, "a write of the peer, " + std::to_string(write->range.length) +
                                  " bytes at " + std::to_string(write->range.offset) +
                                  ", failed: " + std::strerror(-write->error));
  free_write(write);
  if (current) pump_epochs();
  if (link.stopping) link_check_idle();
}

VolumeImpl::Handled VolumeImpl::receive_barrier(const FrameHeader& header) {
  const bool open = !link.epochs.empty() && link.epochs.back().number == link.receive_epoch;
  const uint64_t writes = open ? link.epochs.back().started : 0;
  if (header.epoch != link.receive_epoch || header.offset != writes ||
      header.sequence + 1 != link.expect_sequence) {
    fail_frame(header, "epoch " + std::to_string(link.receive_epoch) + " is open here with " +
                           std::to_string(writes) + " writes, the last of them " +
                           std::to_string(link.expect_sequence - 1));
    return Handled::kFailed;
  }
  if (!open) {
    ReceivedEpoch epoch;
    epoch.number = header.epoch;
    link.epochs.push_back(std::move(epoch));
  }
  link.epochs.back().closed = true;
  link.epochs.back().hard = (header.flags & kFrameHard) != 0;
  ++link.receive_epoch;
  // R10: nothing behind an ordering barrier is submitted before everything ahead of it is durable.
  if (link.epochs.back().hard) link.hard_wait = true;
  pump_epochs();
  return Handled::kYes;
}

// R10: an epoch is acknowledged after all writes of it and of older ones completed, and a flush
// that began afterwards succeeded.
void VolumeImpl::pump_epochs() {
  if (link.epoch_flushing || broken()) return;
  uint32_t upto = 0;
  for (const ReceivedEpoch& epoch : link.epochs) {
    if (!epoch.closed || epoch.finished != epoch.started || epoch.failed) break;
    upto = epoch.number;
  }
  if (upto == 0) return;
  link.epoch_flushing = true;
  link.epoch_flush_upto = upto;
  link.epoch_flush_io = flush_of(IoTarget::kData, this, [](void* self, Io*) {
    static_cast<VolumeImpl*>(self)->epoch_flushed();
  });
  host.submit(&link.epoch_flush_io);
}

void VolumeImpl::epoch_flushed() {
  link.epoch_flushing = false;
  if (link.epoch_flush_io.result != 0) {
    flush_failed("flush for the peer", link.epoch_flush_io.result);
  }
  if (link.stopping || !link_active()) {
    link_check_idle();
    return;
  }
  // Another flush may have been told of the failure instead of this one. The peer is told of the
  // disk, and hangs up.
  if (broken()) return;
  std::vector<ByteRange> resynced;
  while (!link.epochs.empty() && link.epochs.front().number <= link.epoch_flush_upto) {
    const std::vector<ByteRange>& ranges = link.epochs.front().resynced;
    resynced.insert(resynced.end(), ranges.begin(), ranges.end());
    link.epoch_writes -= link.epochs.front().started;
    link.epochs.pop_front();
  }
  if (link.epochs.empty()) link.hard_wait = false;
  target_durable(resynced);
  if (link.target_done.size() > kTargetPiecesMax) {
    link_stop("the peer resyncs in pieces that make no whole chunks: " +
              std::to_string(link.target_done.size()) + " of them");
    return;
  }
  send_written();
  FrameHeader done;
  done.type = FrameType::kEpochDone;
  done.epoch = link.epoch_flush_upto;
  send_or_queue(done);
  pump_epochs();
}

// One frame for all writes that ended since the last, as ranges.
void VolumeImpl::send_written() {
  if (link.written.empty()) return;
  std::sort(link.written.begin(), link.written.end(),
            [](const WrittenRange& a, const WrittenRange& b) { return a.first < b.first; });
  std::vector<WrittenRange> ranges;
  for (const WrittenRange& one : link.written) {
    if (!ranges.empty() && ranges.back().error == one.error &&
        ranges.back().first + ranges.back().count == one.first) {
      ++ranges.back().count;
    } else {
      ranges.push_back(one);
    }
  }
  std::vector<uint8_t> payload(ranges.size() * kWrittenRangeBytes);
  encode_written(ranges, payload.data());
  FrameHeader header;
  header.type = FrameType::kWritten;
  header.payload_bytes = static_cast<uint32_t>(payload.size());
  if (send_frame(header, payload.data(), false)) link.written.clear();
}

}  // namespace tidemark
