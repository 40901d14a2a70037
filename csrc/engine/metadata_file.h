// Blocking access to a region of a backing disk or metadata file, for create, attach and dump.
#pragma once

#include <cstdint>

#include "core/host.h"
#include "engine/backing.h"

namespace tidemark {

class MetadataFile : public MetadataIo {
 public:
  // The region [offset, offset + bytes) of `backing`, which has to live longer.
  MetadataFile(const Backing& backing, uint64_t offset, uint64_t bytes);
  ~MetadataFile() override;
  MetadataFile(const MetadataFile&) = delete;
  MetadataFile& operator=(const MetadataFile&) = delete;

  // 0 or -errno: -EINVAL outside of the region, -EIO behind the end of the file. Buffers of any
  // alignment; they pass through an aligned one, as O_DIRECT wants it.
  int read(uint64_t offset, void* buffer, size_t bytes) override;
  int write(uint64_t offset, const void* buffer, size_t bytes) override;
  int flush() override;
  int flush_data() override;
  // The metadata lie apart from this backing disk.
  void belongs_to(const Backing& data) { data_fd_ = data.fd(); }

 private:
  bool inside(uint64_t offset, size_t bytes) const;

  int fd_;
  int data_fd_ = -1;
  uint64_t offset_;
  uint64_t bytes_;
  uint8_t* bounce_ = nullptr;
};

}  // namespace tidemark
