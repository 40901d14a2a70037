// The backing disk and the metadata store: opening, locking (R12), probing, limits.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/host.h"
#include "core/layout.h"

namespace tidemark {

struct EngineError;

// What blkid-like probing found in the first and last bytes of a disk: "ext4 filesystem", "GPT partition table", "Tidemark metadata" ...
std::optional<std::string> probe_signature(int fd, uint64_t device_bytes);

class Backing {
 public:
  // Open O_RDWR|O_CLOEXEC with O_DIRECT where the filesystem takes it (falls back and remembers why), O_EXCL on block devices, and take an
  // exclusive flock through that same open file, waiting up to lock_timeout_ms for a predecessor. nullptr: error filled.
  static std::unique_ptr<Backing> open(const std::string& path, uint64_t lock_timeout_ms, EngineError* error);
  ~Backing();

  int fd() const;
  const std::string& path() const;
  bool block_device() const;
  bool direct() const;
  const std::string& direct_refused() const;  // why O_DIRECT is not used; empty when it is
  uint64_t device_bytes() const;
  uint32_t block_bytes() const;               // logical block: 512 or 4096
  bool can_discard() const;
  bool fast_zeroes() const;
};

}  // namespace tidemark
