#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "core/superblock.h"
#include "engine/backing.h"

namespace tidemark {
namespace {

constexpr uint64_t kDisk = 8u << 20;

// A disk in memory.
struct Disk {
  explicit Disk(uint64_t bytes = kDisk) : bytes(bytes), fd(memfd_create("disk", MFD_CLOEXEC)) {
    REQUIRE(ftruncate(fd, static_cast<off_t>(bytes)) == 0);
  }
  ~Disk() { close(fd); }
  void put(uint64_t offset, const std::string& data) const {
    REQUIRE(pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset)) ==
            static_cast<ssize_t>(data.size()));
  }
  std::string found() const {
    int error = 0;
    const auto name = probe_signature(fd, bytes, &error);
    CHECK(error == 0);
    return name.value_or("");
  }
  uint64_t bytes;
  int fd;
};

TEST_CASE("a blank disk and one with mere data carry no signature") {
  CHECK(Disk().found() == "");
  CHECK(Disk(4096).found() == "");
  CHECK(Disk(512).found() == "");
  CHECK(Disk(0).found() == "");
  const Disk data;
  data.put(0, std::string(70'000, 'x'));
  data.put(kDisk - 70'000, std::string(70'000, 'y'));
  CHECK(data.found() == "");
}

TEST_CASE("signatures are found where they lie and named") {
  struct Row {
    uint64_t offset;
    std::string bytes;
    std::string name;
  };
  const std::vector<Row> rows = {
      {0, "XFSB", "XFS filesystem"},
      {65536 + 64, "_BHRfS_M", "Btrfs filesystem"},
      {4086, "SWAPSPACE2", "swap area"},
      {0, std::string("LUKS\xba\xbe\0\2", 8), "LUKS encrypted volume"},
      {512, "LABELONE" + std::string(16, '\0') + "LVM2 001", "LVM2 physical volume"},
      {512, "EFI PART", "GPT partition table"},
      {kDisk - 512, "EFI PART", "GPT partition table (backup)"},
      {kDisk - 65536, "\xfc\x4e\x2b\xa9", "MD RAID member (superblock 0.90)"},
      {kDisk - 8192, "\xfc\x4e\x2b\xa9", "MD RAID member (superblock 1.0)"},
      {0, "\xfc\x4e\x2b\xa9", "MD RAID member (superblock 1.1)"},
      {4096, "\xfc\x4e\x2b\xa9", "MD RAID member (superblock 1.2)"},
      {kDisk - 4096 + 60, "\x83\x74\x02\x6b", "DRBD metadata"},
      {3, "NTFS    ", "NTFS filesystem"},
      {82, "FAT32   ", "FAT32 filesystem"},
      {32769, "CD001", "ISO 9660 filesystem"},
      {0, "hsqs", "SquashFS filesystem"},
      {131072, std::string("\x0c\xb1\xba\0\0\0\0\0", 8), "ZFS pool member"},
      {kDisk - 131072 + 5 * 1024, std::string("\x0c\xb1\xba\0\0\0\0\0", 8), "ZFS pool member"},
      {1024 + 56, "\x53\xef", "ext2 filesystem"},
      {510, "\x55\xaa", "boot sector"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.name);
    const Disk disk;
    disk.put(row.offset, row.bytes);
    CHECK(disk.found() == row.name);
  }
}

TEST_CASE("features tell ext3 and ext4 apart") {
  const Disk disk;
  disk.put(1024 + 56, "\x53\xef");
  disk.put(1024 + 92, "\x04");
  CHECK(disk.found() == "ext3 filesystem");
  disk.put(1024 + 96, "\x40");
  CHECK(disk.found() == "ext4 filesystem");
}

TEST_CASE("an MBR is a partition table only with an entry") {
  const Disk disk;
  disk.put(510, "\x55\xaa");
  disk.put(446 + 4, "\x83");
  disk.put(446 + 12, "\x10");
  CHECK(disk.found() == "MBR partition table");
}

TEST_CASE("Tidemark's own metadata is found at both ends, also when it is damaged") {
  Geometry geometry;
  geometry.log_extents = 64;
  Split split;
  REQUIRE_FALSE(split_device(kDisk, 512, Placement::kEnd, 0, geometry, &split).has_value());
  Superblock superblock;
  superblock.serial = 1;
  superblock.metadata_id.bytes[0] = superblock.node_id.bytes[0] = 1;
  superblock.geometry = split.layout.geometry;
  superblock.device_bytes = kDisk;
  superblock.data_offset = split.data_offset;
  superblock.meta_offset = split.meta_offset;
  uint8_t block[kBlockSize];
  encode_superblock(superblock, 0, block);
  std::string bytes(reinterpret_cast<char*>(block), sizeof block);
  for (const uint64_t offset : {uint64_t{0}, kDisk - 4096}) {
    const Disk disk;
    disk.put(offset, bytes);
    CHECK(disk.found() == "Tidemark metadata");
  }
  bytes[100] = static_cast<char>(bytes[100] ^ 1);
  const Disk damaged;
  damaged.put(0, bytes);
  CHECK(damaged.found() == "Tidemark metadata");
}

}  // namespace
}  // namespace tidemark
