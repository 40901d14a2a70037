// Opening happens without O_DIRECT, and O_DIRECT is switched on afterwards with fcntl: the lock
// must be held by the very open file that the I/O uses (R12), and there is only one open file this
// way.
#include "engine/backing.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/major.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

namespace tidemark {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kRetryInterval = std::chrono::milliseconds(20);

void fail(EngineError* error, const char* code, int number, const char* syscall,
          const std::string& message) {
  *error = {code, number, syscall, number == 0 ? message : message + ": " + std::strerror(number)};
}

// "process 123 (name)" that holds the flock of this inode, or "another process".
std::string lock_holder(const struct stat& info) {
  char key[64];
  std::snprintf(key, sizeof key, "%02x:%02x:%llu", major(info.st_dev), minor(info.st_dev),
                static_cast<unsigned long long>(info.st_ino));
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    std::istringstream words(line);
    std::string number, kind, mode, access, pid, inode;
    words >> number >> kind >> mode >> access >> pid >> inode;
    if (kind != "FLOCK" || inode != key || pid == "-1" || pid == "0") continue;
    std::string name;
    std::getline(std::ifstream("/proc/" + pid + "/comm"), name);
    return "process " + pid + (name.empty() ? "" : " (" + name + ")");
  }
  return "another process";
}

uint64_t read_number(const std::string& path) {
  uint64_t value = 0;
  std::ifstream(path) >> value;
  return value;
}

}  // namespace

Backing::~Backing() {
  if (fd_ >= 0) ::close(fd_);
}

// Open and lock, waiting for a predecessor whose last I/O may still be on its way.
bool Backing::open_locked(uint64_t timeout_ms, EngineError* error) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
  for (;; std::this_thread::sleep_for(kRetryInterval)) {
    const bool last = Clock::now() >= deadline;
    struct stat info = {};
    if (fd_ < 0) {
      if (::stat(path_.c_str(), &info) != 0) {
        fail(error, "BACKING_OPEN", errno, "stat", "cannot open '" + path_ + "'");
        return false;
      }
      block_device_ = S_ISBLK(info.st_mode);
      if (!block_device_ && !S_ISREG(info.st_mode)) {
        fail(error, "BACKING_OPEN", 0, "stat",
             "'" + path_ + "' is neither a block device nor a regular file");
        return false;
      }
      fd_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC | (block_device_ ? O_EXCL : 0));
      if (fd_ < 0 && errno == EBUSY && block_device_) {
        if (!last) continue;
        fail(error, "BACKING_LOCKED", EBUSY, "open",
             "'" + path_ +
                 "' is in use: mounted, part of another device, or held by another process");
        return false;
      }
      if (fd_ < 0) {
        fail(error, "BACKING_OPEN", errno, "open", "cannot open '" + path_ + "' for writing");
        return false;
      }
    }
    if (flock(fd_, LOCK_EX | LOCK_NB) == 0) return true;
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) {
      fail(error, "BACKING_OPEN", errno, "flock", "cannot lock '" + path_ + "'");
      return false;
    }
    if (last) {
      const int number = errno;
      fstat(fd_, &info);
      // Without the errno's own text, which speaks of resources.
      *error = {"BACKING_LOCKED", number, "flock",
                "'" + path_ + "' is locked by " + lock_holder(info) + " (waited " +
                    std::to_string(timeout_ms) +
                    " ms); another daemon uses this volume, or one "
                    "that was killed has writes under way"};
      return false;
    }
  }
}

bool Backing::measure(EngineError* error) {
  struct stat info = {};
  if (fstat(fd_, &info) != 0) {
    fail(error, "BACKING_OPEN", errno, "fstat", "cannot read the size of '" + path_ + "'");
    return false;
  }
  if (block_device_) {
    int block = 0;
    if (ioctl(fd_, BLKGETSIZE64, &device_bytes_) != 0 || ioctl(fd_, BLKSSZGET, &block) != 0) {
      fail(error, "BACKING_OPEN", errno, "ioctl", "cannot read the size of '" + path_ + "'");
      return false;
    }
    if (block != 512 && block != 4096) {
      fail(error, "BACKING_UNSUPPORTED", 0, "",
           "'" + path_ + "' has logical blocks of " + std::to_string(block) +
               " bytes; 512 and 4096 are supported");
      return false;
    }
    block_bytes_ = static_cast<uint32_t>(block);
    // Of a RAM disk a flush is nothing, and io_uring would have a worker of its own do it.
    in_memory_ = major(info.st_rdev) == RAMDISK_MAJOR;
    return true;
  }
  device_bytes_ = static_cast<uint64_t>(info.st_size);
  struct statfs filesystem = {};
  in_memory_ = fstatfs(fd_, &filesystem) == 0 &&
               (filesystem.f_type == TMPFS_MAGIC || filesystem.f_type == RAMFS_MAGIC);
  return true;
}

// What the filesystem says about alignment is believed only after a real read; a filesystem that
// says nothing is asked with 512 and then with 4096.
void Backing::try_direct() {
  const int flags = fcntl(fd_, F_GETFL);
  if (flags < 0 || fcntl(fd_, F_SETFL, flags | O_DIRECT) != 0) {
    direct_refused_ = std::string("O_DIRECT is refused (") + std::strerror(errno) + ")";
    return;
  }
  memory_align_ = kSectorSize;
#ifdef STATX_DIOALIGN
  struct statx info = {};
  if (statx(fd_, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 &&
      (info.stx_mask & STATX_DIOALIGN) != 0 && info.stx_dio_offset_align != 0) {
    if (!block_device_ && info.stx_dio_offset_align > kSectorSize) block_bytes_ = 4096;
    if (info.stx_dio_mem_align > memory_align_) memory_align_ = info.stx_dio_mem_align;
  }
#endif
  void* buffer = nullptr;
  if (posix_memalign(&buffer, 4096, 4096) != 0) buffer = nullptr;
  int number = buffer == nullptr ? ENOMEM : 0;
  for (; buffer != nullptr; block_bytes_ = 4096) {
    number = 0;
    if (pread(fd_, buffer, block_bytes_, block_bytes_) >= 0) break;
    number = errno;
    if (number != EINVAL || block_bytes_ == 4096 || block_device_) break;
  }
  std::free(buffer);
  if (number == 0 && memory_align_ <= 4096) {
    direct_ = true;
    return;
  }
  direct_refused_ = number == 0
                        ? "O_DIRECT needs buffers aligned to more than 4096 bytes"
                        : std::string("a read with O_DIRECT fails (") + std::strerror(number) + ")";
  memory_align_ = 1;
  if (!block_device_) block_bytes_ = kSectorSize;
  fcntl(fd_, F_SETFL, flags & ~O_DIRECT);
}

void Backing::probe_discard() {
  if (block_device_) {
    struct stat info = {};
    if (fstat(fd_, &info) != 0) return;
    const std::string device = "/sys/dev/block/" + std::to_string(major(info.st_rdev)) + ":" +
                               std::to_string(minor(info.st_rdev));
    // A partition has no queue of its own; its disk's is one folder up.
    for (const char* queue : {"/queue/", "/../queue/"}) {
      const std::string folder = device + queue;
      if (access(folder.c_str(), F_OK) != 0) continue;
      can_discard_ = read_number(folder + "write_zeroes_max_bytes") > 0 &&
                     read_number(folder + "discard_max_bytes") > 0;
      return;
    }
    return;
  }
  // Behind the end there is nothing to lose, and the filesystem still says whether it can.
  const auto end = static_cast<off_t>((device_bytes_ + 4095) & ~uint64_t{4095});
  can_discard_ = fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, end, 4096) == 0;
}

std::unique_ptr<Backing> Backing::open(const std::string& path, uint64_t lock_timeout_ms,
                                       EngineError* error) {
  std::unique_ptr<Backing> backing(new Backing);
  backing->path_ = path;
  if (!backing->open_locked(lock_timeout_ms, error) || !backing->measure(error)) return nullptr;
  backing->try_direct();
  backing->probe_discard();
  backing->device_bytes_ -= backing->device_bytes_ % backing->block_bytes_;
  return backing;
}

std::unique_ptr<Backing> Backing::open_read_only(const std::string& path, EngineError* error) {
  std::unique_ptr<Backing> backing(new Backing);
  backing->path_ = path;
  // Nonblocking, so that a fifo is refused and not waited for.
  backing->fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat info = {};
  if (backing->fd_ < 0 || fstat(backing->fd_, &info) != 0) {
    fail(error, "BACKING_OPEN", errno, "open", "cannot open '" + path + "'");
    return nullptr;
  }
  backing->block_device_ = S_ISBLK(info.st_mode);
  if (!backing->block_device_ && !S_ISREG(info.st_mode)) {
    fail(error, "BACKING_OPEN", 0, "fstat",
         "'" + path + "' is neither a block device nor a regular file");
    return nullptr;
  }
  if (!backing->measure(error)) return nullptr;
  // Shared and at once given back: this must not keep a daemon from starting.
  if (flock(backing->fd_, LOCK_SH | LOCK_NB) == 0) {
    flock(backing->fd_, LOCK_UN);
  } else {
    backing->locked_ = errno == EWOULDBLOCK;
  }
  return backing;
}

}  // namespace tidemark
