// An operation is a sequence of steps; each ring entry is one piece of one step.
//
//   read, write      kTransfer until all bytes are through (kBounced: by an aligned buffer)
//   flush            kSync
//   discard, zeroes  kPunch -> kZeroRange -> kWriteZeroes, the first that the file takes; what it
//   refuses
//                    once (EOPNOTSUPP, EINVAL, ENODEV) is not tried again. FUA: then kSync
#include "engine/disk.h"

#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace tidemark {
namespace {

constexpr uint64_t kZeroBytes = 1u << 20;
constexpr uint64_t kBounceBytes = 256u << 10;
constexpr uint64_t kTransferMax = 1u << 30;  // one system call moves less than 2 GiB
constexpr uint64_t kInPlaceMax = 64u << 10;  // copying that much takes less than waking a worker
constexpr uint32_t kRetriesMax = 1000;       // of EAGAIN and EINTR in a row

bool refused(int32_t result) {
  return result == -EOPNOTSUPP || result == -EINVAL || result == -ENODEV || result == -ENOSYS;
}

}  // namespace

struct Disk::Operation : Completion {
  Disk* disk = nullptr;
  Io* io = nullptr;
  const Area* area = nullptr;
  Step step{};
  uint32_t retries = 0;
  int32_t failure = 0;
  uint64_t at = 0;     // bytes of the Io that are done
  uint64_t piece = 0;  // bytes of the entry that is out
  Entry entry;
  int32_t result = 0;  // of what was done in place
  uint8_t* bounce = nullptr;
};

Disk::Disk(Ring& ring, const Area& data, const Area& meta, std::function<void(Io*)> done)
    : ring_(ring),
      areas_{data, meta},
      can_punch_{data.can_punch, meta.can_punch},
      done_(std::move(done)) {
  void* zeroes = mmap(nullptr, kZeroBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (zeroes != MAP_FAILED) zeroes_ = static_cast<uint8_t*>(zeroes);
}

Disk::~Disk() {
  assert(in_flight_ == 0);
  if (zeroes_ != nullptr) munmap(zeroes_, kZeroBytes);
}

Disk::Step Disk::zeroing_step(const Io& io) const {
  const auto area = static_cast<size_t>(io.target);
  const bool may_unmap = io.kind == IoKind::kDiscard || (io.flags & kIoNoUnmap) == 0;
  if (may_unmap && can_punch_[area]) return Step::kPunch;
  if (can_zero_range_[area]) return Step::kZeroRange;
  return Step::kWriteZeroes;
}

void Disk::submit(Io* io) {
  if (abandoned_) return;
  Operation* operation;
  if (idle_.empty()) {
    operation = operations_.emplace_back(std::make_unique<Operation>()).get();
    // None of them may fail once an operation counts as in flight.
    for (auto* list : {&idle_, &for_ring_, &in_place_, &done_in_place_}) {
      list->reserve(operations_.capacity());
    }
    operation->disk = this;
    operation->done = [](Completion* self, int32_t result, uint32_t) {
      auto* mine = static_cast<Operation*>(self);
      mine->disk->advance(mine, result);
    };
  } else {
    operation = idle_.back();
    idle_.pop_back();
  }
  ++in_flight_;
  operation->io = io;
  operation->area = &areas_[static_cast<size_t>(io->target)];
  operation->at = 0;
  operation->retries = 0;
  operation->failure = 0;
  const Area& area = *operation->area;
  switch (io->kind) {
    case IoKind::kRead:
    case IoKind::kWrite: {
      const auto address = reinterpret_cast<uintptr_t>(io->buffer);
      const bool aligned = (address & (area.memory_align - 1)) == 0;
      operation->step = aligned ? Step::kTransfer : Step::kBounced;
      if (!aligned) {
        operation->bounce = static_cast<uint8_t*>(std::aligned_alloc(4096, kBounceBytes));
        if (operation->bounce == nullptr) operation->failure = -ENOMEM;
      }
      break;
    }
    case IoKind::kFlush:
      operation->step = Step::kSync;
      break;
    case IoKind::kDiscard:
    case IoKind::kWriteZeroes:
      operation->step = zeroing_step(*io);
      if (zeroes_ == nullptr) operation->failure = -ENOMEM;
      break;
  }
  // Outside of its area an Io would hit the neighbour: user data, or the metadata.
  if (io->offset > area.bytes || io->length > area.bytes - io->offset ||
      io->offset % area.block_bytes != 0 || io->length % area.block_bytes != 0) {
    operation->failure = -EINVAL;
  }
  if (operation->failure != 0 || (io->length == 0 && io->kind != IoKind::kFlush)) {
    operation->step = Step::kFail;  // also the empty Io, whose failure is 0
  }
  start(operation);
}

// Queue the next piece of the current step.
void Disk::start(Operation* operation) {
  prepare(operation);
  const bool in_place = operation->area->in_memory && operation->entry.quick;
  (in_place ? in_place_ : for_ring_).push_back(operation);
}

// In the order of submit(). An exception leaves the rest.
void Disk::enter_ring() {
  std::reverse(for_ring_.begin(), for_ring_.end());
  for (; !for_ring_.empty(); for_ring_.pop_back()) {
    Operation* operation = for_ring_.back();
    if (abandoned_) {
      finish(operation, -ECANCELED);
      continue;
    }
    const Entry& entry = operation->entry;
    io_uring_sqe* sqe = ring_.sqe(operation);
    sqe->opcode = entry.opcode;
    sqe->fd = operation->step == Step::kFail ? -1 : operation->area->fd;
    sqe->off = entry.offset;
    sqe->addr = entry.address;
    sqe->len = entry.length;
    sqe->rw_flags = entry.flags;  // and fsync_flags: they lie in one place
  }
}

void Disk::prepare(Operation* operation) {
  Entry& entry = operation->entry;
  entry = {};
  const Io& io = *operation->io;
  const uint64_t offset = operation->area->offset + io.offset + operation->at;
  const uint64_t left = io.length - operation->at;
  const bool fua = (io.flags & kIoFua) != 0;
  switch (operation->step) {
    case Step::kTransfer:
    case Step::kBounced: {
      const bool write = io.kind == IoKind::kWrite;
      uint8_t* memory = io.buffer + operation->at;
      operation->piece = std::min(left, kTransferMax);
      if (operation->step == Step::kBounced) {
        operation->piece = std::min(left, kBounceBytes);
        if (write) std::memcpy(operation->bounce, memory, operation->piece);
        memory = operation->bounce;
      }
      entry.opcode = write ? IORING_OP_WRITE : IORING_OP_READ;
      entry.offset = offset;
      entry.address = reinterpret_cast<uint64_t>(memory);
      entry.length = static_cast<uint32_t>(operation->piece);
      if (write && fua) entry.flags = RWF_DSYNC;
      entry.quick = operation->piece <= kInPlaceMax;
      break;
    }
    case Step::kWriteZeroes:
      operation->piece = std::min(left, kZeroBytes);
      entry.opcode = IORING_OP_WRITE;
      entry.offset = offset;
      entry.address = reinterpret_cast<uint64_t>(zeroes_);
      entry.length = static_cast<uint32_t>(operation->piece);
      break;
    case Step::kPunch:
    case Step::kZeroRange:
      operation->piece = left;
      entry.opcode = IORING_OP_FALLOCATE;
      entry.offset = offset;
      entry.address = left;
      entry.length = FALLOC_FL_KEEP_SIZE | (operation->step == Step::kPunch ? FALLOC_FL_PUNCH_HOLE
                                                                            : FALLOC_FL_ZERO_RANGE);
      break;
    case Step::kSync:
      entry.opcode = IORING_OP_FSYNC;
      entry.flags = IORING_FSYNC_DATASYNC;
      entry.quick = true;
      break;
    case Step::kFail:
      // Through the ring all the same: `done` must not be called from inside submit().
      entry.opcode = IORING_OP_NOP;
      break;
  }
}

// In this order: what `done` submits is not done in place before it was handed back.
void Disk::run_in_place() {
  assert(!undelivered());
  done_in_place_.swap(in_place_);
  for (Operation* operation : done_in_place_) operation->result = perform(*operation);
}

int32_t Disk::perform(const Operation& operation) const {
  if (abandoned_) return -ECANCELED;
  const Entry& entry = operation.entry;
  const int fd = operation.area->fd;
  const auto offset = static_cast<off_t>(entry.offset);
  const iovec part = {reinterpret_cast<void*>(entry.address), entry.length};
  ssize_t result = 0;
  if (entry.opcode == IORING_OP_FSYNC) {
    result = fdatasync(fd);
  } else if (entry.opcode == IORING_OP_READ) {
    result = preadv(fd, &part, 1, offset);
  } else {
    result = pwritev2(fd, &part, 1, offset, static_cast<int>(entry.flags));
  }
  return static_cast<int32_t>(result < 0 ? -errno : result);
}

// An exception out of `done` leaves the rest.
void Disk::deliver() {
  while (undelivered()) {
    Operation* operation = done_in_place_[delivered_++];
    advance(operation, operation->result);
  }
  done_in_place_.clear();
  delivered_ = 0;
}

// A piece came back.
void Disk::advance(Operation* operation, int32_t result) {
  if (abandoned_) return finish(operation, -ECANCELED);
  if ((result == -EINTR || result == -EAGAIN) && operation->retries < kRetriesMax) {
    ++operation->retries;
    return start(operation);
  }
  operation->retries = 0;
  const Io& io = *operation->io;
  const auto area = static_cast<size_t>(io.target);
  switch (operation->step) {
    case Step::kFail:
      return finish(operation, operation->failure);
    case Step::kSync:
      return finish(operation, result < 0 ? result : 0);
    case Step::kPunch:
    case Step::kZeroRange:
      if (refused(result)) {
        (operation->step == Step::kPunch ? can_punch_ : can_zero_range_)[area] = false;
        operation->step = zeroing_step(io);
        return start(operation);
      }
      if (result < 0) return finish(operation, result);
      operation->at = io.length;
      break;
    case Step::kTransfer:
    case Step::kBounced:
    case Step::kWriteZeroes: {
      if (result < 0) return finish(operation, result);
      auto moved = static_cast<uint64_t>(result);
      // A part of a block is repeated: O_DIRECT could not go on from its middle. Nothing at all is
      // the end of the device, where the volume must not reach.
      moved -= moved % operation->area->block_bytes;
      if (moved == 0) return finish(operation, -EIO);
      if (operation->step == Step::kBounced && io.kind == IoKind::kRead) {
        std::memcpy(io.buffer + operation->at, operation->bounce, moved);
      }
      operation->at += moved;
      break;
    }
  }
  if (operation->at < io.length) return start(operation);
  const bool zeroing = io.kind == IoKind::kDiscard || io.kind == IoKind::kWriteZeroes;
  if (zeroing && (io.flags & kIoFua) != 0) {
    operation->step = Step::kSync;
    return start(operation);
  }
  finish(operation, 0);
}

void Disk::finish(Operation* operation, int32_t result) {
  Io* io = operation->io;
  std::free(operation->bounce);
  operation->bounce = nullptr;
  operation->io = nullptr;
  idle_.push_back(operation);
  --in_flight_;
  if (abandoned_) return;
  io->result = result;
  done_(io);
}

}  // namespace tidemark
