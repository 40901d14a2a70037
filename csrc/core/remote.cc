// Reads of a primary without a disk: asked of the peer, and answered there.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "core/volume_impl.h"

namespace tidemark {

// --- at the diskless node ---

void VolumeImpl::read_data(Io* io) {
  if (detaching() || diskless()) {
    remote_queue.push_back(io);
  } else {
    host.submit(io);
  }
}

bool VolumeImpl::read_again(Io* io) {
  if (remote_answer) return false;
  // Nothing more is said of a disk that is gone already.
  if (!diskless())
    disk_fault(Fault::kRead, "read of " + std::to_string(io->length) + " bytes at " +
                                 std::to_string(io->offset) +
                                 " failed: " + std::strerror(-io->result));
  if (!detaching() && !diskless()) return false;
  remote_queue.push_back(io);
  return true;
}

void VolumeImpl::end_remote_io(Io* io, int32_t result) {
  io->result = result;
  remote_answer = true;
  io->done(io->context, io);
  remote_answer = false;
}

void VolumeImpl::pump_remote_reads() {
  if (!diskless() || link.state != Connection::kConnected) return;
  for (;;) {
    const bool open =
        !remote_reads.empty() && remote_reads.back().asked < remote_reads.back().io->length;
    if (!open && remote_queue.empty()) return;
    Io* io = open ? remote_reads.back().io : remote_queue.front();
    const uint64_t at = open ? remote_reads.back().asked : 0;
    const uint32_t length =
        static_cast<uint32_t>(std::min<uint64_t>(io->length - at, kFramePayloadMax));
    if (remote_frames.size() >= kRemoteReadsMax || remote_bytes + length > kRemoteReadBytesMax)
      return;
    FrameHeader header;
    header.type = FrameType::kRead;
    header.sequence = link.next_read;
    header.offset = io->offset + at;
    header.length = length;
    if (!link.controls.empty() || !send_frame(header, nullptr, false)) return;
    ++link.next_read;
    if (!open) {
      remote_queue.pop_front();
      remote_reads.push_back({io, 0, 0, 0});
    }
    const auto read = std::prev(remote_reads.end());
    read->asked += length;
    remote_frames[header.sequence] = {read, at, length};
    remote_bytes += length;
  }
}

VolumeImpl::Handled VolumeImpl::receive_read_reply(const FrameHeader& header,
                                                   std::span<const uint8_t> payload) {
  const auto found = remote_frames.find(header.sequence);
  if (found == remote_frames.end() || header.length != found->second.length ||
      header.offset != found->second.read->io->offset + found->second.at) {
    fail_frame(header, "nobody asked for it");
    return Handled::kFailed;
  }
  const RemoteFrame frame = found->second;
  const auto read = frame.read;
  remote_frames.erase(found);
  remote_bytes -= frame.length;
  link.progress_us = now_us;
  read->answered += frame.length;
  if (header.type == FrameType::kReadReply) {
    std::memcpy(read->io->buffer + frame.at, payload.data(), payload.size());
  } else {
    const bool known = header.epoch > 0 && header.epoch < 4096;
    read->error = known ? -static_cast<int32_t>(header.epoch) : -EIO;
  }
  if (read->answered == read->io->length) {
    Io* io = read->io;
    const int32_t error = read->error;
    remote_reads.erase(read);
    if (error == 0) {
      ++counters.remote_reads;
    } else {
      emit(EventKind::kIoError, "read of " + std::to_string(io->length) + " bytes at " +
                                    std::to_string(io->offset) +
                                    " failed at the peer: " + std::strerror(-error));
    }
    end_remote_io(io, error);
  }
  return link_active() ? Handled::kYes : Handled::kFailed;
}

// They are asked again over the next link.
void VolumeImpl::remote_reads_lost() {
  remote_frames.clear();
  remote_bytes = 0;
  for (auto read = remote_reads.rbegin(); read != remote_reads.rend(); ++read)
    remote_queue.push_front(read->io);
  remote_reads.clear();
}

// --- at its peer ---

VolumeImpl::Handled VolumeImpl::receive_read(const FrameHeader& header) {
  const uint64_t size = layout().geometry.volume_bytes;
  if (!link.peer_detached || role == Role::kPrimary || header.offset > size ||
      header.length > size - header.offset) {
    fail_frame(header, "it belongs to no primary without a disk, or reaches past the volume's end");
    return Handled::kFailed;
  }
  // One that is answered here is no longer waited for there: never so many, and so long.
  uint64_t served_bytes = header.length;
  for (const ServedRead& read : served_reads) served_bytes += read.header.length;
  if (served_reads.size() >= kRemoteReadsMax || served_bytes > kRemoteReadBytesMax) {
    fail_frame(header, std::to_string(served_reads.size()) +
                           " reads before it are not answered yet; at most " +
                           std::to_string(kRemoteReadsMax) + " of " +
                           std::to_string(kRemoteReadBytesMax) + " bytes may wait");
    return Handled::kFailed;
  }
  const ByteRange aligned = align_out({header.offset, header.length});
  uint8_t* buffer = host.buffer_get(aligned.length);
  if (buffer == nullptr) return wait_for(InputWait::kMemory);
  ServedRead& read = served_reads.emplace_back();
  read.volume = this;
  read.header = header;
  read.aligned = aligned;
  read.buffer = buffer;
  read.link_serial = link.serial;
  // Behind the writes that came before it and are under way.
  read.lock.range = aligned;
  read.lock.exclusive = false;
  read.lock.context = &read;
  read.lock.granted = [](void* context, RangeLock*) {
    ServedRead* self = static_cast<ServedRead*>(context);
    self->volume->serve_read(self);
  };
  if (locks.acquire(&read.lock)) serve_read(&read);
  return Handled::kYes;
}

void VolumeImpl::serve_read(ServedRead* read) {
  read->step = ServedRead::Step::kReading;
  read->io.kind = IoKind::kRead;
  read->io.offset = read->aligned.offset;
  read->io.length = read->aligned.length;
  read->io.buffer = read->buffer;
  read->io.context = read;
  read->io.done = [](void* context, Io* io) {
    ServedRead* self = static_cast<ServedRead*>(context);
    VolumeImpl* volume = self->volume;
    self->step = ServedRead::Step::kDone;
    volume->locks.release(&self->lock);
    if (io->result != 0) {
      volume->disk_fault(Fault::kRead, "read of " + std::to_string(io->length) + " bytes at " +
                                           std::to_string(io->offset) +
                                           " for the peer failed: " + std::strerror(-io->result));
    }
    if (volume->link.stopping) {
      volume->link_check_idle();
    } else {
      volume->pump_served_reads();
    }
  };
  host.submit(&read->io);
}

bool VolumeImpl::send_read_reply(const ServedRead& read) {
  FrameHeader header;
  header.sequence = read.header.sequence;
  header.offset = read.header.offset;
  header.length = read.header.length;
  if (read.io.result != 0) {
    header.type = FrameType::kReadFailed;
    header.epoch = static_cast<uint32_t>(-read.io.result);
    return send_frame(header, nullptr, false);
  }
  header.type = FrameType::kReadReply;
  header.payload_bytes = header.length;
  return send_frame(header, read.buffer + (read.header.offset - read.aligned.offset), true);
}

void VolumeImpl::pump_served_reads() {
  if (!link_active()) return;
  for (auto read = served_reads.begin(); read != served_reads.end();) {
    if (read->step != ServedRead::Step::kDone) {
      ++read;
      continue;
    }
    if (!send_read_reply(*read)) return;
    host.buffer_put(read->buffer, read->aligned.length);
    read = served_reads.erase(read);
  }
}

// As drop_tasks() does, and for its reasons.
bool VolumeImpl::drop_served_reads() {
  std::list<ServedRead> dropped;
  for (auto it = served_reads.begin(); it != served_reads.end();) {
    const auto read = it++;
    if (read->step == ServedRead::Step::kReading) continue;
    read->lock.granted = [](void*, RangeLock*) {};
    dropped.splice(dropped.end(), served_reads, read);
  }
  for (ServedRead& read : dropped) {
    if (read.step == ServedRead::Step::kLocking) locks.release(&read.lock);
    host.buffer_put(read.buffer, read.aligned.length);
  }
  return served_reads.empty();
}

}  // namespace tidemark
