// The backing disk and the metadata store: opening, locking (R12), probing, limits.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/host.h"
#include "core/layout.h"
#include "engine/error.h"

namespace tidemark {

// What blkid-like probing found in the first and last bytes of a disk: "ext4 filesystem", "GPT
// partition table", "Tidemark metadata" ... `error`: -errno of a read that failed, 0 otherwise.
std::optional<std::string> probe_signature(int fd, uint64_t device_bytes, int* error);

class Backing {
 public:
  // Open O_RDWR|O_CLOEXEC with O_DIRECT where the filesystem takes it (falls back and remembers
  // why), O_EXCL on block devices, and take an exclusive flock through that same open file, waiting
  // up to lock_timeout_ms for a predecessor. nullptr: error filled.
  static std::unique_ptr<Backing> open(const std::string& path, uint64_t lock_timeout_ms,
                                       EngineError* error);
  // For looking only: no lock, no O_DIRECT. locked() says whether another process holds the lock.
  static std::unique_ptr<Backing> open_read_only(const std::string& path, EngineError* error);
  ~Backing();
  Backing(const Backing&) = delete;
  Backing& operator=(const Backing&) = delete;

  int fd() const { return fd_; }
  const std::string& path() const { return path_; }
  bool block_device() const { return block_device_; }
  bool direct() const { return direct_; }
  // Why O_DIRECT is not used; empty when it is.
  const std::string& direct_refused() const { return direct_refused_; }
  uint64_t device_bytes() const { return device_bytes_; }
  uint32_t block_bytes() const { return block_bytes_; }    // logical block: 512 or 4096
  uint32_t memory_align() const { return memory_align_; }  // of buffers; 1 without O_DIRECT
  // Both need punching holes, which reads back as zeroes wherever it works (R6).
  bool can_discard() const { return can_discard_; }
  bool fast_zeroes() const { return can_discard_; }
  bool locked() const { return locked_; }
  // On a filesystem in memory (tmpfs, ramfs), which cannot be asked not to wait, so that the kernel
  // hands every I/O of a ring to a worker; or a RAM disk, of which it does that with flushes.
  bool in_memory() const { return in_memory_; }

 private:
  Backing() = default;
  bool open_locked(uint64_t timeout_ms, EngineError* error);
  bool measure(EngineError* error);
  void try_direct();
  void probe_discard();

  int fd_ = -1;
  std::string path_;
  std::string direct_refused_;
  uint64_t device_bytes_ = 0;
  uint32_t block_bytes_ = kSectorSize;
  uint32_t memory_align_ = 1;
  bool block_device_ = false;
  bool direct_ = false;
  bool can_discard_ = false;
  bool locked_ = false;
  bool in_memory_ = false;
};

}  // namespace tidemark
