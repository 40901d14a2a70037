// The smallest ublk server that is correct: one queue over one disk, on one ring, and nothing else.
// What it costs is the driver's own cost, which no server in userspace gets below; bench/ and
// docs/performance.md compare with it.
//
//   tidemark-ublk-loop DISK    prints the device's path once it is there; ends with SIGTERM
//
// It has the same shape as Tidemark's device: depth, largest request, volatile cache, FUA. It
// offers no discard. A server that dies takes its device along.
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "core/types.h"
#include "engine/ring.h"
#include "frontends/ublk_control.h"
#include "frontends/ublk_options.h"
#include "frontends/ublk_params.h"

namespace tidemark {
namespace {

constexpr auto kCommandTime = std::chrono::seconds(30);
constexpr auto kNodeTime = std::chrono::seconds(10);
constexpr auto kPoll = std::chrono::milliseconds(5);

UblkClock::time_point soon() { return UblkClock::now() + kCommandTime; }

[[noreturn]] void fail(const std::string& what, int error) {
  std::fprintf(stderr, "tidemark-ublk-loop: %s: %s\n", what.c_str(), std::strerror(error));
  // What the kernel holds for this process goes with it, the device too.
  std::_Exit(1);
}

void check(const std::string& what, int result) {
  if (result < 0) fail(what, -result);
}

// The path must appear; the kernel makes the nodes in its own time.
int open_node(const std::string& path, int flags) {
  const auto deadline = UblkClock::now() + kNodeTime;
  for (;;) {
    const int fd = open(path.c_str(), flags | O_CLOEXEC);
    if (fd >= 0 || UblkClock::now() > deadline) return fd >= 0 ? fd : -errno;
    std::this_thread::sleep_for(kPoll);
  }
}

// One request at most: its command is in the kernel, or its I/O is.
struct Tag : Completion {
  class Queue* queue = nullptr;
  uint8_t* payload = nullptr;
  uint16_t number = 0;
  bool serving = false;
  uint32_t operation = 0;
  int32_t result = 0;
  int32_t expected = 0;  // bytes that the I/O has to move
};

// Lives on its thread: the driver takes commands of a queue from one task.
class Queue {
 public:
  Queue(int disk_fd, const ublksrv_ctrl_dev_info& info)
      : disk_fd_(disk_fd), depth_(info.queue_depth), io_bytes_(info.max_io_buf_bytes) {
    char_fd_ = open_node("/dev/ublkc" + std::to_string(info.dev_id), O_RDWR);
    check("the character device", char_fd_);
    check("io_uring", ring_.open({.entries = 2u * depth_}));
    void* address = mmap(nullptr, depth_ * sizeof(ublksrv_io_desc), PROT_READ,
                         MAP_SHARED | MAP_POPULATE, char_fd_, UBLKSRV_CMD_BUF_OFFSET);
    if (address == MAP_FAILED) fail("mapping the descriptors", errno);
    descriptors_ = static_cast<const ublksrv_io_desc*>(address);
    address = mmap(nullptr, size_t{depth_} * io_bytes_, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) fail("mapping the payload", errno);
    tags_ = std::make_unique<Tag[]>(depth_);
    for (uint16_t number = 0; number < depth_; ++number) {
      Tag& tag = tags_[number];
      tag.queue = this;
      tag.number = number;
      tag.payload = static_cast<uint8_t*>(address) + size_t{number} * io_bytes_;
      tag.done = [](Completion* self, int32_t result, uint32_t) {
        auto& finished = *static_cast<Tag*>(self);
        finished.queue->completed(finished, result);
      };
    }
  }

  void fetch() {
    live_ = depth_;
    for (uint16_t number = 0; number < depth_; ++number)
      command(tags_[number], UBLK_U_IO_FETCH_REQ);
    check("FETCH_REQ", ring_.submit());
  }

  // Until the device is stopped.
  void serve() {
    while (live_ > 0) check("io_uring_enter", ring_.turn(UINT64_MAX));
    // The driver deletes a device once nobody has it open.
    munmap(const_cast<ublksrv_io_desc*>(descriptors_), depth_ * sizeof(ublksrv_io_desc));
    close(char_fd_);
  }

 private:
  void command(Tag& tag, uint32_t operation) {
    tag.serving = false;
    tag.operation = operation;
    ublksrv_io_cmd command = {};
    command.tag = tag.number;
    command.result = tag.result;
    command.addr = reinterpret_cast<uint64_t>(tag.payload);
    io_uring_sqe* sqe = ring_.sqe(&tag);
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = char_fd_;
    sqe->cmd_op = operation;
    std::memcpy(reinterpret_cast<uint8_t*>(sqe) + offsetof(io_uring_sqe, cmd), &command,
                sizeof command);
  }

  void commit(Tag& tag, int32_t result) {
    tag.result = result;
    command(tag, UBLK_U_IO_COMMIT_AND_FETCH_REQ);
  }

  void completed(Tag& tag, int32_t result) {
    if (tag.serving) {
      // A part of a request is not done again here: it counts as failed.
      commit(tag, result == tag.expected ? result : result < 0 ? result : -EIO);
    } else if (result == UBLK_IO_RES_OK) {
      start(tag);
    } else if (result == -EAGAIN || result == -EINTR || result == -ENOMEM) {
      command(tag, tag.operation);  // it did not reach the driver
    } else if (result == UBLK_IO_RES_ABORT) {
      --live_;
    } else {
      fail("a tag's command", -result);
    }
  }

  void start(Tag& tag) {
    const ublksrv_io_desc& descriptor = descriptors_[tag.number];
    const uint8_t operation = descriptor.op_flags & 0xff;
    if (operation != UBLK_IO_OP_READ && operation != UBLK_IO_OP_WRITE &&
        operation != UBLK_IO_OP_FLUSH) {
      commit(tag, -EOPNOTSUPP);
      return;
    }
    tag.serving = true;
    io_uring_sqe* sqe = ring_.sqe(&tag);
    sqe->fd = disk_fd_;
    tag.expected = 0;
    if (operation == UBLK_IO_OP_FLUSH) {
      sqe->opcode = IORING_OP_FSYNC;
      sqe->fsync_flags = IORING_FSYNC_DATASYNC;
      return;
    }
    tag.expected = static_cast<int32_t>(descriptor.nr_sectors * kSectorSize);
    sqe->opcode = operation == UBLK_IO_OP_READ ? IORING_OP_READ : IORING_OP_WRITE;
    sqe->addr = reinterpret_cast<uint64_t>(tag.payload);
    sqe->len = static_cast<uint32_t>(tag.expected);
    sqe->off = descriptor.start_sector * kSectorSize;
    if ((descriptor.op_flags & UBLK_IO_F_FUA) != 0) sqe->rw_flags = RWF_DSYNC;
  }

  Ring ring_;
  const int disk_fd_;
  int char_fd_ = -1;
  const uint16_t depth_;
  const uint32_t io_bytes_;
  const ublksrv_io_desc* descriptors_ = nullptr;
  std::unique_ptr<Tag[]> tags_;
  uint32_t live_ = 0;
};

void run(const char* path) {
  // Before any thread: all of them inherit it, and only this one waits for the signal.
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);

  const int disk_fd = open(path, O_RDWR | O_DIRECT | O_EXCL | O_CLOEXEC);
  if (disk_fd < 0) fail(path, errno);
  uint64_t bytes = 0;
  if (ioctl(disk_fd, BLKGETSIZE64, &bytes) != 0) fail(path, errno);

  const UblkOptions options;
  UblkControl control;
  const char* call = "";
  if (const int error = control.open(&call); error != 0) fail(call, -error);
  ublksrv_ctrl_dev_info info = {};
  info.nr_hw_queues = 1;
  info.queue_depth = options.queue_depth;
  info.max_io_buf_bytes = options.max_io_bytes;
  info.dev_id = UINT32_MAX;  // the kernel chooses
  info.ublksrv_pid = getpid();
  info.flags = UBLK_F_CMD_IOCTL_ENCODE;
  check("ADD_DEV", control.add(&info, soon()));
  UblkShape shape;
  shape.volume_bytes = bytes;
  check("SET_PARAMS",
        control.set_params(info.dev_id, ublk_params_for(shape, info.max_io_buf_bytes), soon()));

  std::atomic<bool> fetched = false;
  std::thread server([&] {
    Queue queue(disk_fd, info);
    queue.fetch();
    fetched = true;
    queue.serve();
  });
  while (!fetched) std::this_thread::sleep_for(kPoll);
  check("START_DEV", control.start(info.dev_id, soon(), {}));
  const std::string block = "/dev/ublkb" + std::to_string(info.dev_id);
  const int block_fd = open_node(block, O_RDONLY);
  check(block, block_fd);
  close(block_fd);
  std::puts(block.c_str());
  std::fflush(stdout);

  int signal = 0;
  sigwait(&ends, &signal);
  check("STOP_DEV", control.stop(info.dev_id, soon()));
  server.join();
  check("DEL_DEV", control.remove(info.dev_id, true, soon()));
}

}  // namespace
}  // namespace tidemark

int main(int count, char** words) {
  if (count != 2) {
    std::fprintf(stderr, "usage: tidemark-ublk-loop DISK\n");
    return 2;
  }
  tidemark::run(words[1]);
  return 0;
}
