// What a disk carries, told by the magic numbers that filesystems, partition tables, volume
// managers and image formats leave at fixed places. A warning before overwriting, not a full probe:
// names are for people, and a false alarm (which force overrides) is better than a silent
// overwrite.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/superblock.h"
#include "engine/backing.h"

namespace tidemark {
namespace {

using namespace std::string_view_literals;

constexpr uint64_t kKiB = 1024;
constexpr uint64_t kWindowBytes = 1024 * kKiB;  // read at the start, and at the end

// A part of the disk in memory; asking outside of it finds nothing.
class Window {
 public:
  // Reads [first, first + bytes), all multiples of 4 KiB; what lies behind the end stays out.
  int load(int fd, uint64_t first, uint64_t bytes) {
    memory_.reset(static_cast<uint8_t*>(std::aligned_alloc(4096, bytes)));
    if (memory_ == nullptr) return -ENOMEM;
    first_ = first;
    bytes_ = 0;
    while (bytes_ < bytes) {
      const ssize_t got =
          pread(fd, memory_.get() + bytes_, bytes - bytes_, static_cast<off_t>(first + bytes_));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return -errno;
      if (got == 0) break;
      bytes_ += static_cast<uint64_t>(got);
      if (bytes_ % 4096 != 0) break;  // the end of a file; O_DIRECT would refuse to go on
    }
    return 0;
  }
  const uint8_t* at(uint64_t offset, uint64_t bytes) const {
    if (offset < first_ || offset - first_ > bytes_ || bytes_ - (offset - first_) < bytes) {
      return nullptr;
    }
    return memory_.get() + (offset - first_);
  }
  bool is(uint64_t offset, std::string_view magic) const {
    const uint8_t* bytes = at(offset, magic.size());
    return bytes != nullptr && std::memcmp(bytes, magic.data(), magic.size()) == 0;
  }
  uint32_t le32(uint64_t offset) const {
    const uint8_t* b = at(offset, 4);
    if (b == nullptr) return 0;
    return b[0] | uint32_t{b[1]} << 8 | uint32_t{b[2]} << 16 | uint32_t{b[3]} << 24;
  }

 private:
  struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  std::unique_ptr<uint8_t, Free> memory_;
  uint64_t first_ = 0;
  uint64_t bytes_ = 0;
};

struct Magic {
  uint64_t offset;  // from the start of the disk
  std::string_view bytes;
  const char* name;
};

// Order matters where a container's magic would hide what it holds.
constexpr Magic kMagics[] = {
    {0, "LUKS\xba\xbe"sv, "LUKS encrypted volume"},
    {16 * kKiB, "SKUL\xba\xbe"sv, "LUKS encrypted volume (second header)"},
    {0, "XFSB"sv, "XFS filesystem"},
    {64 * kKiB + 64, "_BHRfS_M"sv, "Btrfs filesystem"},
    {4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"sv,
     "bcache device or bcachefs filesystem"},
    {4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"sv,
     "bcachefs filesystem"},
    {1024, "\x10\x20\xf5\xf2"sv, "F2FS filesystem"},
    {1024, "\xe2\xe1\xf5\xe0"sv, "EROFS filesystem"},
    {0, "hsqs"sv, "SquashFS filesystem"},
    {32 * kKiB + 1, "CD001"sv, "ISO 9660 filesystem"},
    {32 * kKiB + 1, "BEA01"sv, "UDF filesystem"},
    {32 * kKiB, "JFS1"sv, "JFS filesystem"},
    {64 * kKiB + 52, "ReIsErFs"sv, "ReiserFS filesystem"},
    {64 * kKiB + 52, "ReIsEr2Fs"sv, "ReiserFS filesystem"},
    {64 * kKiB + 52, "ReIsEr3Fs"sv, "ReiserFS filesystem"},
    {64 * kKiB, "\x01\x16\x19\x70"sv, "GFS2 filesystem"},
    {1024, "OCFSV2"sv, "OCFS2 filesystem"},
    {2048, "OCFSV2"sv, "OCFS2 filesystem"},
    {4096, "OCFSV2"sv, "OCFS2 filesystem"},
    {8192, "OCFSV2"sv, "OCFS2 filesystem"},
    {32, "NXSB"sv, "APFS container"},
    {1024, "H+\x00\x04"sv, "HFS+ filesystem"},
    {1024, "HX\x00\x05"sv, "HFS+ filesystem"},
    {3, "NTFS    "sv, "NTFS filesystem"},
    {3, "EXFAT   "sv, "exFAT filesystem"},
    {3, "-FVE-FS-"sv, "BitLocker encrypted volume"},
    {82, "FAT32   "sv, "FAT32 filesystem"},
    {54, "FAT16   "sv, "FAT16 filesystem"},
    {54, "FAT12   "sv, "FAT12 filesystem"},
    {54, "FAT     "sv, "FAT filesystem"},
    {0, "bluestore block device"sv, "Ceph BlueStore device"},
    {0, "dmvdo001"sv, "VDO volume"},
    {0, "QFI\xfb"sv, "qcow2 disk image"},
    {0, "KDMV"sv, "VMDK disk image"},
    {0, "vhdxfile"sv, "VHDX disk image"},
    {4086, "SWAPSPACE2"sv, "swap area"},
    {4086, "SWAP-SPACE"sv, "swap area"},
    {16 * kKiB - 10, "SWAPSPACE2"sv, "swap area"},
    {64 * kKiB - 10, "SWAPSPACE2"sv, "swap area"},
    {512, "EFI PART"sv, "GPT partition table"},
    {4096, "EFI PART"sv, "GPT partition table"},
};

bool is_tidemark(const Window& window, uint64_t offset) {
  const uint8_t* block = window.at(offset, kBlockSize);
  if (block == nullptr) return false;
  const SuperblockParse parse =
      parse_superblock(std::span<const uint8_t, kBlockSize>(block, kBlockSize));
  return parse.error != SuperblockError::kBlank && parse.error != SuperblockError::kForeign;
}

std::optional<std::string> find_extfs(const Window& head) {
  constexpr uint64_t kSuperblock = 1024;
  if (!head.is(kSuperblock + 56, "\x53\xef"sv)) return std::nullopt;
  // The magic is two bytes only: the block size has to make sense as well.
  if (head.le32(kSuperblock + 24) > 6) return std::nullopt;
  const uint32_t compatible = head.le32(kSuperblock + 92);
  const uint32_t incompatible = head.le32(kSuperblock + 96);
  if ((incompatible & 0x8) != 0) return "ext journal device";
  if ((incompatible & 0x3c0) != 0) return "ext4 filesystem";  // extents, 64bit, mmp, flex_bg
  return (compatible & 0x4) != 0 ? "ext3 filesystem" : "ext2 filesystem";
}

std::optional<std::string> find_lvm(const Window& head) {
  for (uint64_t sector = 0; sector < 4; ++sector) {
    if (head.is(sector * 512, "LABELONE"sv) && head.is(sector * 512 + 24, "LVM2 001"sv)) {
      return "LVM2 physical volume";
    }
  }
  return std::nullopt;
}

std::optional<std::string> find_zfs(const Window& window, uint64_t label) {
  constexpr uint64_t kUberblocks = 128 * kKiB;
  for (uint64_t offset = kUberblocks; offset < 2 * kUberblocks; offset += kKiB) {
    if (window.is(label + offset, "\x0c\xb1\xba\x00\x00\x00\x00\x00"sv) ||
        window.is(label + offset, "\x00\x00\x00\x00\x00\xba\xb1\x0c"sv)) {
      return "ZFS pool member";
    }
  }
  return std::nullopt;
}

// A boot sector's mark alone is no partition table: every entry must have a sane state byte, and
// one a type.
std::optional<std::string> find_mbr(const Window& head) {
  if (!head.is(510, "\x55\xaa"sv)) return std::nullopt;
  bool used = false;
  for (uint64_t entry = 446; entry < 510; entry += 16) {
    const uint8_t* bytes = head.at(entry, 16);
    if ((bytes[0] & 0x7f) != 0) return "boot sector";
    used |= bytes[4] != 0 && head.le32(entry + 12) != 0;
  }
  return used ? "MBR partition table" : "boot sector";
}

constexpr std::string_view kMdMagic = "\xfc\x4e\x2b\xa9"sv;

std::optional<std::string> find_at_end(const Window& tail, uint64_t device_bytes) {
  if (device_bytes >= 4096 && is_tidemark(tail, (device_bytes & ~uint64_t{4095}) - 4096)) {
    return "Tidemark metadata";
  }
  for (const uint64_t block : {uint64_t{512}, uint64_t{4096}}) {
    if (device_bytes >= block && tail.is(device_bytes / block * block - block, "EFI PART"sv)) {
      return "GPT partition table (backup)";
    }
  }
  constexpr uint64_t kMd90 = 64 * kKiB;
  if (device_bytes >= kMd90 && tail.is((device_bytes & ~(kMd90 - 1)) - kMd90, kMdMagic)) {
    return "MD RAID member (superblock 0.90)";
  }
  const uint64_t sectors = device_bytes / 512;
  if (sectors >= 16 && tail.is(((sectors - 16) & ~uint64_t{7}) * 512, kMdMagic)) {
    return "MD RAID member (superblock 1.0)";
  }
  if (device_bytes >= 4096) {
    const uint64_t drbd = (device_bytes & ~uint64_t{4095}) - 4096;
    const uint8_t* magic = tail.at(drbd + 60, 4);
    if (magic != nullptr && tail.is(drbd + 60, "\x83\x74\x02"sv) && magic[3] >= 0x67 &&
        magic[3] <= 0x6f) {
      return "DRBD metadata";
    }
  }
  // Two labels of 256 KiB in front of the last multiple of their size.
  constexpr uint64_t kZfsLabel = 256 * kKiB;
  const uint64_t end = device_bytes & ~(kZfsLabel - 1);
  if (end >= 2 * kZfsLabel) {
    if (auto found = find_zfs(tail, end - 2 * kZfsLabel)) return found;
    return find_zfs(tail, end - kZfsLabel);
  }
  return std::nullopt;
}

std::optional<std::string> find_at_start(const Window& head) {
  if (is_tidemark(head, 0)) return "Tidemark metadata";
  if (head.is(0, kMdMagic)) return "MD RAID member (superblock 1.1)";
  if (head.is(4096, kMdMagic)) return "MD RAID member (superblock 1.2)";
  if (auto found = find_lvm(head)) return found;
  for (const Magic& magic : kMagics) {
    if (head.is(magic.offset, magic.bytes)) return magic.name;
  }
  if (auto found = find_extfs(head)) return found;
  if (auto found = find_zfs(head, 0)) return found;
  if (auto found = find_zfs(head, 256 * kKiB)) return found;
  return find_mbr(head);
}

}  // namespace

std::optional<std::string> probe_signature(int fd, uint64_t device_bytes, int* error) {
  Window head;
  Window tail;
  *error = head.load(fd, 0, kWindowBytes);
  if (*error != 0) return std::nullopt;
  if (auto found = find_at_start(head)) return found;
  const uint64_t tail_first =
      device_bytes > kWindowBytes ? (device_bytes - kWindowBytes) & ~uint64_t{4095} : 0;
  *error = tail.load(fd, tail_first, kWindowBytes + 4096);
  if (*error != 0) return std::nullopt;
  return find_at_end(tail, device_bytes);
}

}  // namespace tidemark
