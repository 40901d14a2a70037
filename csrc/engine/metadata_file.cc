#include "engine/metadata_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace tidemark {
namespace {

constexpr size_t kBounceBytes = 1u << 20;

}  // namespace

MetadataFile::MetadataFile(const Backing& backing, uint64_t offset, uint64_t bytes)
    : fd_(backing.fd()), offset_(offset), bytes_(bytes) {
  bounce_ = static_cast<uint8_t*>(std::aligned_alloc(kBlockSize, kBounceBytes));
}

MetadataFile::~MetadataFile() { std::free(bounce_); }

bool MetadataFile::inside(uint64_t offset, size_t bytes) const {
  return offset <= bytes_ && bytes <= bytes_ - offset;
}

int MetadataFile::read(uint64_t offset, void* buffer, size_t bytes) {
  if (bounce_ == nullptr) return -ENOMEM;
  if (!inside(offset, bytes)) return -EINVAL;
  auto* out = static_cast<uint8_t*>(buffer);
  // Attach reads whole maps, gigabytes of them: into its own buffer, which is aligned.
  while (bytes > 0) {
    const size_t piece = std::min(bytes, kBounceBytes);
    const bool direct =
        reinterpret_cast<uintptr_t>(out) % kBlockSize == 0 && piece % kBlockSize == 0;
    uint8_t* const place = direct ? out : bounce_;
    const ssize_t got = pread(fd_, place, piece, static_cast<off_t>(offset_ + offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -errno;
    if (got == 0) return -EIO;
    if (!direct) std::memcpy(out, bounce_, static_cast<size_t>(got));
    out += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return 0;
}

int MetadataFile::write(uint64_t offset, const void* buffer, size_t bytes) {
  if (bounce_ == nullptr) return -ENOMEM;
  if (!inside(offset, bytes)) return -EINVAL;
  const auto* in = static_cast<const uint8_t*>(buffer);
  while (bytes > 0) {
    const size_t piece = std::min(bytes, kBounceBytes);
    std::memcpy(bounce_, in, piece);
    const ssize_t put = pwrite(fd_, bounce_, piece, static_cast<off_t>(offset_ + offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return -errno;
    if (put == 0) return -EIO;
    in += put;
    offset += static_cast<uint64_t>(put);
    bytes -= static_cast<size_t>(put);
  }
  return 0;
}

int MetadataFile::flush() { return fdatasync(fd_) == 0 ? 0 : -errno; }

int MetadataFile::flush_data() { return data_fd_ < 0 || fdatasync(data_fd_) == 0 ? 0 : -errno; }

}  // namespace tidemark
