#include "frontends/ublk_queue.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "core/types.h"

namespace tidemark {
namespace {

constexpr uint16_t kQueueId = 0;

constexpr size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

size_t page_bytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

int ublk_decode(const ublksrv_io_desc& descriptor, uint64_t volume_bytes, Request* request) {
  request->flags = 0;
  switch (descriptor.op_flags & 0xff) {
    case UBLK_IO_OP_READ:
      request->op = Op::kRead;
      break;
    case UBLK_IO_OP_WRITE:
      request->op = Op::kWrite;
      break;
    case UBLK_IO_OP_FLUSH:
      request->op = Op::kFlush;
      break;
    case UBLK_IO_OP_DISCARD:
      request->op = Op::kDiscard;
      break;
    case UBLK_IO_OP_WRITE_ZEROES:
      request->op = Op::kWriteZeroes;
      if ((descriptor.op_flags & UBLK_IO_F_NOUNMAP) != 0) request->flags |= kRequestNoUnmap;
      break;
    default:
      return EOPNOTSUPP;
  }
  if ((descriptor.op_flags & UBLK_IO_F_FUA) != 0) request->flags |= kRequestFua;
  if (request->op == Op::kFlush) {
    request->offset = 0;
    request->length = 0;
    return 0;
  }
  request->length = uint64_t{descriptor.nr_sectors} * kSectorSize;
  const uint64_t sectors = volume_bytes / kSectorSize;
  if (descriptor.nr_sectors == 0 || descriptor.start_sector > sectors ||
      descriptor.nr_sectors > sectors - descriptor.start_sector) {
    return EIO;
  }
  request->offset = descriptor.start_sector * kSectorSize;
  return 0;
}

uint64_t ublk_descriptors_offset(uint16_t queue_id, size_t page) {
  // The stride between queues is that of the deepest possible queue.
  return UBLKSRV_CMD_BUF_OFFSET +
         uint64_t{queue_id} * round_up(UBLK_MAX_QUEUE_DEPTH * sizeof(ublksrv_io_desc), page);
}

size_t ublk_descriptors_bytes(uint16_t depth, size_t page) {
  return round_up(depth * sizeof(ublksrv_io_desc), page);
}

struct UblkQueue::Tag : Completion, Request {
  UblkQueue* queue = nullptr;  // null: abandoned
  uint8_t* payload = nullptr;
  int32_t commit_result = 0;
  uint32_t operation = 0;  // of the command in the kernel
  uint16_t number = 0;
  TagState state = TagState::kIdle;
  bool out = false;  // its request is with the volume
};

UblkQueue::UblkQueue(FrontendHost& host, Frontend* owner, Events events)
    : host_(host), owner_(owner), events_(std::move(events)) {}

UblkQueue::~UblkQueue() {
  if (live() == 0) {
    close();
  } else {
    abandon();
  }
}

int UblkQueue::map(int char_fd, uint16_t depth, uint32_t max_io_bytes) {
  assert(fd_ < 0 && depth > 0 && max_io_bytes > 0);
  fd_ = char_fd;
  depth_ = depth;
  max_io_bytes_ = max_io_bytes;

  descriptors_bytes_ = ublk_descriptors_bytes(depth, page_bytes());
  void* address = mmap(nullptr, descriptors_bytes_, PROT_READ, MAP_SHARED | MAP_POPULATE, fd_,
                       static_cast<off_t>(ublk_descriptors_offset(kQueueId, page_bytes())));
  if (address == MAP_FAILED) return -errno;
  descriptors_ = static_cast<const ublksrv_io_desc*>(address);

  payload_bytes_ = (size_t{depth} + 1) * max_io_bytes;
  address = mmap(nullptr, payload_bytes_, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) return -errno;
  payload_ = static_cast<uint8_t*>(address);
  // A child of a fork would make the driver's pinned pages copies.
  madvise(payload_, payload_bytes_, MADV_DONTFORK);

  scratch_ = payload_ + size_t{depth} * max_io_bytes;
  tags_ = std::make_unique<Tag[]>(depth);
  for (uint16_t number = 0; number < depth; ++number) {
    Tag& tag = tags_[number];
    tag.queue = this;
    tag.number = number;
    tag.payload = payload_ + size_t{number} * max_io_bytes;
    tag.done = [](Completion* self, int32_t result, uint32_t) {
      auto* finished = static_cast<Tag*>(self);
      if (finished->queue != nullptr) finished->queue->completed(*finished, result);
    };
  }
  return 0;
}

int UblkQueue::fetch() {
  assert(live() == 0);
  live_.store(depth_, std::memory_order_release);
  for (uint16_t number = 0; number < depth_; ++number) {
    command(tags_[number], UBLK_U_IO_FETCH_REQ);
  }
  const int error = host_.ring().submit();
  return error == -EAGAIN || error == -EBUSY ? 0 : error;  // the next turn tries again
}

void UblkQueue::command(Tag& tag, uint32_t operation) {
  tag.state = TagState::kFetched;
  tag.operation = operation;
  ublksrv_io_cmd command = {};
  command.q_id = kQueueId;
  command.tag = tag.number;
  command.result = tag.commit_result;
  // The volume may still use the payload of a tag that was given up.
  command.addr = reinterpret_cast<uint64_t>(given_up_ ? scratch_ : tag.payload);
  io_uring_sqe* sqe = host_.ring().sqe(&tag);
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->fd = fd_;
  sqe->cmd_op = operation;
  std::memcpy(reinterpret_cast<uint8_t*>(sqe) + offsetof(io_uring_sqe, cmd), &command,
              sizeof command);
}

void UblkQueue::completed(Tag& tag, int32_t result) {
  assert(tag.state == TagState::kFetched);
  switch (result) {
    case UBLK_IO_RES_OK:
      serve(tag);
      return;
    case -EAGAIN:
    case -EINTR:
    case -ENOMEM:
      // The command did not reach the driver: without another try its request would never end.
      command(tag, tag.operation);
      return;
    case UBLK_IO_RES_ABORT:
      finish(tag);
      return;
    default: {
      const bool fetch = tag.operation == UBLK_U_IO_FETCH_REQ;
      const std::string text = std::string(fetch ? "FETCH_REQ" : "COMMIT_AND_FETCH_REQ") +
                               " for tag " + std::to_string(tag.number) +
                               " failed: " + std::strerror(-result);
      if (events_.tag_failed) events_.tag_failed(text);
      finish(tag);
    }
  }
}

void UblkQueue::serve(Tag& tag) {
  tag.state = TagState::kServed;
  if (given_up_) {
    commit(tag, -EIO);
    return;
  }
  int error = ublk_decode(descriptors_[tag.number], host_.volume_bytes(), &tag);
  const bool transfers = tag.op == Op::kRead || tag.op == Op::kWrite;
  if (error == 0 && transfers && tag.length > max_io_bytes_) error = EIO;
  if (error != 0) {
    commit(tag, -error);
    return;
  }
  tag.buffer = transfers ? tag.payload : nullptr;
  tag.result = 0;
  tag.owner = owner_;
  tag.out = true;
  out_.fetch_add(1, std::memory_order_relaxed);
  host_.submit(&tag);
}

void UblkQueue::complete(Request* request) {
  Tag& tag = *static_cast<Tag*>(request);
  assert(tag.out);
  tag.out = false;
  out_.fetch_sub(1, std::memory_order_release);
  // Abandoned: the driver gives it to the next server. Given up: it was answered.
  if (tag.queue == nullptr || given_up_) return;
  assert(tag.state == TagState::kServed);
  int32_t result = tag.result;
  const bool transfers = tag.op == Op::kRead || tag.op == Op::kWrite;
  // A short count would have the driver send the rest again; the volume does all or fails.
  if (result == 0 && transfers) result = static_cast<int32_t>(tag.length);
  commit(tag, result);
}

void UblkQueue::commit(Tag& tag, int32_t result) {
  progress_.fetch_add(1, std::memory_order_relaxed);
  tag.commit_result = result;
  command(tag, UBLK_U_IO_COMMIT_AND_FETCH_REQ);  // goes out with the turn, in a batch
}

void UblkQueue::give_up() {
  if (given_up_ || tags_ == nullptr) return;
  given_up_ = true;
  for (uint16_t number = 0; number < depth_; ++number) {
    if (tags_[number].state == TagState::kServed) commit(tags_[number], -EIO);
  }
}

void UblkQueue::finish(Tag& tag) {
  tag.state = TagState::kFinal;
  if (live_.fetch_sub(1, std::memory_order_acq_rel) == 1 && events_.ended) events_.ended();
}

void UblkQueue::leave_device() {
  // The mapping holds a reference to the device, as the file does.
  if (descriptors_ != nullptr)
    munmap(const_cast<ublksrv_io_desc*>(descriptors_), descriptors_bytes_);
  descriptors_ = nullptr;
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

// For the process's life: who has pointers to the tags cannot be asked to forget them.
void UblkQueue::keep_tags() {
  for (uint16_t number = 0; number < depth_; ++number) tags_[number].queue = nullptr;
  static std::mutex mutex;
  static std::vector<std::unique_ptr<Tag[]>> kept;
  const std::lock_guard lock(mutex);
  kept.push_back(std::move(tags_));
}

void UblkQueue::close() {
  assert(live() == 0);
  leave_device();
  if (tags_ != nullptr && out() > 0) {
    keep_tags();
  } else if (payload_ != nullptr) {
    munmap(payload_, payload_bytes_);
  }
  payload_ = nullptr;
  tags_.reset();
}

void UblkQueue::abandon() {
  leave_device();
  if (tags_ == nullptr) return;
  // Until the ring is closed and this thread has ended, the driver may still copy a request's data
  // to a tag's address: that must hit nothing (it gets EFAULT and queues the request again), and
  // above all no other mapping of the process. So the address range is kept, and its memory given
  // back, unless the volume still has requests with buffers in it.
  if (out() == 0) {
    mmap(payload_, payload_bytes_, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  }
  payload_ = nullptr;
  keep_tags();  // the ring has pointers to them, too
  live_.store(0, std::memory_order_release);
}

}  // namespace tidemark
