#include "engine/ring.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>

namespace tidemark {
namespace {

int sys_setup(uint32_t entries, io_uring_params* params) {
  const long fd = syscall(__NR_io_uring_setup, entries, params);
  return fd < 0 ? -errno : static_cast<int>(fd);
}

// The words of the queues are plain memory to the kernel; these are the accesses that order them.
uint32_t load_acquire(const uint32_t* word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
void store_release(uint32_t* word, uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

// Best first. What an old kernel does not know it refuses with EINVAL. DEFER_TASKRUN lets the
// kernel's half of a completion run inside our own enter(), so that a batch costs one switch and no
// interrupt.
constexpr uint32_t kSetupFlags[] = {
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
        IORING_SETUP_TASKRUN_FLAG,
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
        IORING_SETUP_TASKRUN_FLAG,
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    0,
};

constexpr uint32_t kNeededFeatures =
    IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;

}  // namespace

__kernel_timespec timespec_of(uint64_t us) {
  __kernel_timespec time = {};
  time.tv_sec = static_cast<int64_t>(us / 1'000'000);
  time.tv_nsec = static_cast<long long>(us % 1'000'000 * 1000);
  return time;
}

Ring::~Ring() { close(); }

int Ring::map(uint64_t offset, size_t bytes, Mapping* out) {
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_,
                       static_cast<off_t>(offset));
  if (address == MAP_FAILED) return -errno;
  *out = {address, bytes};
  return 0;
}

int Ring::open(const Options& options) {
  assert(fd_ < 0);
  io_uring_params params;
  int fd = -EINVAL;
  for (const uint32_t flags : kSetupFlags) {
    std::memset(&params, 0, sizeof params);
    params.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    if (options.sqe128) params.flags |= IORING_SETUP_SQE128;
    params.cq_entries = options.entries * 4;
    fd = sys_setup(options.entries, &params);
    if (fd != -EINVAL) break;
  }
  if (fd < 0) return fd;
  fd_ = fd;
  if ((params.features & kNeededFeatures) != kNeededFeatures) {
    close();
    return -ENOSYS;
  }

  sqe_bytes_ = options.sqe128 ? 128 : sizeof(io_uring_sqe);
  const size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
  const size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
  int error = map(IORING_OFF_SQ_RING, sq_bytes > cq_bytes ? sq_bytes : cq_bytes, &queue_map_);
  if (error == 0) error = map(IORING_OFF_SQES, params.sq_entries * sqe_bytes_, &sqe_map_);
  if (error != 0) {
    close();
    return error;
  }

  auto* base = static_cast<uint8_t*>(queue_map_.address);
  const auto word = [base](uint32_t offset) { return reinterpret_cast<uint32_t*>(base + offset); };
  sq_head_ = word(params.sq_off.head);
  sq_tail_ = word(params.sq_off.tail);
  sq_flags_ = word(params.sq_off.flags);
  cq_head_ = word(params.cq_off.head);
  cq_tail_ = word(params.cq_off.tail);
  cqes_ = reinterpret_cast<io_uring_cqe*>(base + params.cq_off.cqes);
  sq_entries_ = params.sq_entries;
  cq_mask_ = params.cq_entries - 1;
  // Entry i of the queue is always slot i: the indirection of the array is not used.
  uint32_t* array = word(params.sq_off.array);
  for (uint32_t i = 0; i < sq_entries_; ++i) array[i] = i;
  local_tail_ = *sq_tail_;
  return 0;
}

void Ring::close() {
  for (Mapping* mapping : {&queue_map_, &sqe_map_}) {
    if (mapping->address != nullptr) munmap(mapping->address, mapping->bytes);
    *mapping = {};
  }
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  in_flight_ = 0;
  spilled_.clear();
}

uint32_t Ring::queued() const { return local_tail_ - load_acquire(sq_head_); }

io_uring_sqe* Ring::slot(uint32_t index) const {
  return reinterpret_cast<io_uring_sqe*>(static_cast<uint8_t*>(sqe_map_.address) +
                                         (index & (sq_entries_ - 1)) * sqe_bytes_);
}

io_uring_sqe* Ring::sqe(Completion* completion) {
  assert(fd_ >= 0);
  if (spilled_.empty() && queued() == sq_entries_) enter(0, 0, 0);
  io_uring_sqe* entry;
  if (spilled_.empty() && queued() < sq_entries_) {
    entry = slot(local_tail_++);
  } else {
    entry = reinterpret_cast<io_uring_sqe*>(spilled_.emplace_back().bytes);
  }
  std::memset(static_cast<void*>(entry), 0, sqe_bytes_);
  entry->user_data = reinterpret_cast<uint64_t>(completion);
  ++in_flight_;
  return entry;
}

void Ring::unspill() {
  while (!spilled_.empty() && queued() < sq_entries_) {
    std::memcpy(static_cast<void*>(slot(local_tail_++)), spilled_.front().bytes, sqe_bytes_);
    spilled_.pop_front();
  }
}

// One system call: submit what is queued, wait for `wait_count` completions. 0 or -errno; what
// cannot be submitted now stays queued.
int Ring::enter(uint32_t wait_count, uint32_t flags, uint64_t timeout_us) {
  unspill();
  // Among what stays behind may be what would end the wait.
  if (!spilled_.empty()) wait_count = 0;
  store_release(sq_tail_, local_tail_);
  __kernel_timespec timeout = {};
  io_uring_getevents_arg argument = {};
  const void* extra = nullptr;
  size_t extra_bytes = 0;
  if (wait_count > 0 && timeout_us != UINT64_MAX) {
    timeout = timespec_of(timeout_us);
    argument.ts = reinterpret_cast<uint64_t>(&timeout);
    extra = &argument;
    extra_bytes = sizeof argument;
    flags |= IORING_ENTER_EXT_ARG;
  }
  const long count =
      syscall(__NR_io_uring_enter, fd_, queued(), wait_count, flags, extra, extra_bytes);
  return count < 0 ? -errno : 0;
}

int Ring::submit() {
  do {
    const uint32_t before = queued();
    if (before == 0 && spilled_.empty()) return 0;
    const int error = enter(0, 0, 0);
    if (error != 0 && error != -EINTR) return error;
    // No progress without an error: the rest goes with the next turn.
    if (queued() >= before) return 0;
  } while (!spilled_.empty());
  return 0;
}

int Ring::deliver() {
  int count = 0;
  uint32_t head = *cq_head_;
  // Only what is there now: a completion that starts the next I/O must not keep the loop in here.
  const uint32_t tail = load_acquire(cq_tail_);
  while (head != tail) {
    const io_uring_cqe cqe = cqes_[head & cq_mask_];
    // Free the entry before the callback, which may submit and so need room for completions.
    store_release(cq_head_, ++head);
    if ((cqe.flags & IORING_CQE_F_MORE) == 0) --in_flight_;
    ++count;
    auto* completion = reinterpret_cast<Completion*>(cqe.user_data);
    if (completion != nullptr) completion->done(completion, cqe.res, cqe.flags);
  }
  return count;
}

int Ring::turn(uint64_t timeout_us) {
  assert(fd_ >= 0);
  const bool ready = load_acquire(cq_tail_) != *cq_head_;
  const uint32_t flags = __atomic_load_n(sq_flags_, __ATOMIC_RELAXED);
  const bool kernel_waits = (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
  const bool sleep = !ready && timeout_us != 0;
  if (sleep || kernel_waits || queued() > 0 || !spilled_.empty()) {
    const int error = enter(sleep ? 1 : 0, IORING_ENTER_GETEVENTS, timeout_us);
    // EAGAIN and EBUSY: no memory, or a long backlog of completions; delivering some helps.
    if (error != 0 && error != -ETIME && error != -EINTR && error != -EAGAIN && error != -EBUSY) {
      return error;
    }
  }
  return deliver();
}

}  // namespace tidemark
