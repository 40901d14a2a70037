// The parts of the ublk frontend that need no driver: parameters, descriptors, mounts, names.
#include <doctest/doctest.h>

#include <cerrno>
#include <string>

#include "core/types.h"
#include "frontends/features.h"
#include "frontends/ublk_node.h"
#include "frontends/ublk_params.h"
#include "frontends/ublk_queue.h"

namespace tidemark {
namespace {

constexpr uint64_t kMib = 1u << 20;

UblkShape shape() {
  return {.volume_bytes = 64 * kMib, .block_bytes = 512, .can_discard = true, .fast_zeroes = true};
}

ublksrv_io_desc descriptor(uint32_t op_flags, uint64_t sector, uint32_t sectors) {
  ublksrv_io_desc made = {};
  made.op_flags = op_flags;
  made.start_sector = sector;
  made.nr_sectors = sectors;
  return made;
}

TEST_CASE("ublk options out of range are refused with the range") {
  UblkOptions options;
  CHECK(ublk_options_problem(options).empty());
  options.queue_depth = 0;
  CHECK(ublk_options_problem(options).find("1..4096") != std::string::npos);
  options.queue_depth = 4097;
  CHECK(ublk_options_problem(options).find("4097") != std::string::npos);
  options.queue_depth = 4096;
  CHECK(ublk_options_problem(options).empty());
  for (const uint32_t bytes : {0u, 2048u, 4097u, 2u << 20}) {
    options.max_io_bytes = bytes;
    CHECK(ublk_options_problem(options).find("4096..1048576") != std::string::npos);
  }
  options.max_io_bytes = 1u << 20;
  CHECK(ublk_options_problem(options).empty());
  options.recover = true;
  CHECK_FALSE(ublk_options_problem(options).empty());
  options.device_id = 0;
  CHECK(ublk_options_problem(options).empty());
}

TEST_CASE("ublk takes volumes of whole sectors, with blocks of 512 or 4096 bytes") {
  UblkShape one = shape();
  CHECK(ublk_shape_problem(one).empty());
  one.volume_bytes = 513;
  CHECK_FALSE(ublk_shape_problem(one).empty());
  one = shape();
  one.volume_bytes = 0;
  CHECK_FALSE(ublk_shape_problem(one).empty());
  one = shape();
  one.block_bytes = 1024;
  CHECK_FALSE(ublk_shape_problem(one).empty());
}

TEST_CASE("ublk parameters say what the volume is") {
  const ublk_params params = ublk_params_for(shape(), 512u << 10);
  CHECK(params.len == sizeof params);
  CHECK(params.types == (UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD));
  CHECK(params.basic.attrs == (UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA));
  CHECK(params.basic.dev_sectors == 64 * kMib / 512);
  CHECK(params.basic.logical_bs_shift == 9);
  CHECK(params.basic.physical_bs_shift == 12);
  CHECK(params.basic.max_sectors == 1024);
  CHECK(params.discard.discard_granularity == 4096);
  CHECK(params.discard.max_discard_segments == 1);
  CHECK(params.discard.max_discard_sectors == kUblkDiscardBytesMax / 512);
  CHECK(params.discard.max_write_zeroes_sectors == kUblkDiscardBytesMax / 512);
}

TEST_CASE("ublk offers no discard on a backing that would not leave zeroes (R6)") {
  UblkShape one = shape();
  one.can_discard = false;
  const ublk_params zeroes_only = ublk_params_for(one, 4096);
  CHECK(zeroes_only.discard.max_discard_sectors == 0);
  CHECK(zeroes_only.discard.max_write_zeroes_sectors > 0);
  one.fast_zeroes = false;
  CHECK(ublk_params_for(one, 4096).types == UBLK_PARAM_TYPE_BASIC);
}

TEST_CASE("a ublk device is taken over only by a volume that keeps what its users rely on") {
  const ublk_params made = ublk_params_for(shape(), 512u << 10);
  CHECK(ublk_params_mismatch(made, shape()).empty());

  UblkShape other = shape();
  other.volume_bytes = 32 * kMib;
  const std::string size = ublk_params_mismatch(made, other);
  CHECK(size.find("67108864") != std::string::npos);
  CHECK(size.find("33554432") != std::string::npos);
  other = shape();
  other.block_bytes = 4096;
  CHECK(ublk_params_mismatch(made, other).find("logical block") != std::string::npos);
  other = shape();
  other.can_discard = false;
  CHECK(ublk_params_mismatch(made, other).find("discard") != std::string::npos);

  ublk_params found = made;
  found.basic.attrs = UBLK_ATTR_VOLATILE_CACHE;
  CHECK_FALSE(ublk_params_mismatch(found, shape()).empty());
  found = made;
  found.types = UBLK_PARAM_TYPE_DEVT;
  CHECK_FALSE(ublk_params_mismatch(found, shape()).empty());

  // Hints may have changed between versions, and what the driver adds is no difference.
  found = made;
  found.basic.io_opt_shift = 16;
  found.basic.physical_bs_shift = 13;
  found.types |= UBLK_PARAM_TYPE_DEVT;
  CHECK(ublk_params_mismatch(found, shape()).empty());
}

TEST_CASE("a ublk device carries the mark of Tidemark and of its volume") {
  CHECK(ublk_marked(ublk_mark(0)));
  CHECK(ublk_mark_tag(ublk_mark(0xfedcba98)) == 0xfedcba98);
  CHECK_FALSE(ublk_marked(0));
  CHECK_FALSE(ublk_marked(0xfedcba98));
}

TEST_CASE("ublk descriptors become requests") {
  Request request;
  CHECK(ublk_decode(descriptor(UBLK_IO_OP_READ, 8, 16), 64 * kMib, &request) == 0);
  CHECK(request.op == Op::kRead);
  CHECK(request.offset == 4096);
  CHECK(request.length == 8192);
  CHECK(request.flags == 0);

  // FUA is bit 13 of op_flags itself, not of what follows the operation.
  CHECK(ublk_decode(descriptor(UBLK_IO_OP_WRITE | UBLK_IO_F_FUA, 0, 1), 512, &request) == 0);
  CHECK(request.op == Op::kWrite);
  CHECK(request.flags == kRequestFua);

  CHECK(ublk_decode(descriptor(UBLK_IO_OP_FLUSH, 77, 3), 512, &request) == 0);
  CHECK(request.op == Op::kFlush);
  CHECK(request.length == 0);

  CHECK(ublk_decode(descriptor(UBLK_IO_OP_DISCARD, 0, 8), 4096, &request) == 0);
  CHECK(request.op == Op::kDiscard);
  CHECK(ublk_decode(descriptor(UBLK_IO_OP_WRITE_ZEROES | UBLK_IO_F_NOUNMAP, 0, 8), 4096,
                    &request) == 0);
  CHECK(request.op == Op::kWriteZeroes);
  CHECK(request.flags == kRequestNoUnmap);
  CHECK(ublk_decode(descriptor(UBLK_IO_OP_WRITE | UBLK_IO_F_META | UBLK_IO_F_SWAP, 0, 8), 4096,
                    &request) == 0);
  CHECK(request.flags == 0);
}

TEST_CASE("ublk descriptors that cannot be right are refused") {
  Request request;
  CHECK(ublk_decode(descriptor(UBLK_IO_OP_WRITE_SAME, 0, 8), 4096, &request) == EOPNOTSUPP);
  CHECK(ublk_decode(descriptor(UBLK_IO_OP_REPORT_ZONES, 0, 8), 4096, &request) == EOPNOTSUPP);
  CHECK(ublk_decode(descriptor(UBLK_IO_OP_READ, 8, 0), 8192, &request) == EIO);
  CHECK(ublk_decode(descriptor(UBLK_IO_OP_READ, 8, 9), 8192, &request) == EIO);
  CHECK(ublk_decode(descriptor(UBLK_IO_OP_READ, 17, 1), 8192, &request) == EIO);
  CHECK(ublk_decode(descriptor(UBLK_IO_OP_WRITE, UINT64_MAX, 2), 8192, &request) == EIO);
  CHECK(ublk_decode(descriptor(UBLK_IO_OP_READ, 8, 8), 8192, &request) == 0);
}

TEST_CASE("ublk descriptors of a queue are mapped behind room for the deepest queues") {
  CHECK(ublk_descriptors_offset(0, 4096) == 0);
  CHECK(ublk_descriptors_offset(1, 4096) == 98304);
  CHECK(ublk_descriptors_offset(1, 65536) == 131072);
  CHECK(ublk_descriptors_bytes(1, 4096) == 4096);
  CHECK(ublk_descriptors_bytes(170, 4096) == 4096);
  CHECK(ublk_descriptors_bytes(171, 4096) == 8192);
  CHECK(ublk_descriptors_bytes(4096, 4096) == 98304);
}

TEST_CASE("mounts of a ublk device and its partitions are found, and no others") {
  const std::string table =
      "22 1 252:0 / /whole rw shared:1 - ext4 /dev/ublkb0 rw\n"
      "23 1 252:1 / /part rw - ext4 /dev/ublkb0p1 rw\n"
      "24 1 0:40 / /btrfs rw shared:2 master:3 - btrfs /dev/ublkb0p2 rw\n"
      "25 1 252:16 / /other rw - ext4 /dev/ublkb01 rw\n"
      "26 1 0:41 / /tmp rw - tmpfs tmpfs rw\n"
      "garbage\n"
      "27 1 0:42 / /last rw - overlay overlay rw";
  const auto mounts = ublk_mounts_in(table, {"252:0", "252:1"}, "/dev/ublkb0");
  CHECK(mounts == std::vector<std::string>{"/whole", "/part", "/btrfs"});
  CHECK(ublk_mounts_in(table, {}, "/dev/ublkb1").empty());
  CHECK(ublk_mounts_in("", {"252:0"}, "/dev/ublkb0").empty());
}

TEST_CASE("features are told as JSON, with or without the driver") {
  const std::string text = features_json();
  CHECK(text.starts_with("{\"kernel\":{\"release\":\""));
  for (const char* part : {"\"io_uring\":{\"usable\":", "\"ublk\":{\"usable\":", "\"uses\":[{",
                           "\"USER_RECOVERY_REISSUE\"", "\"nbd\":{\"usable\":"}) {
    CHECK_MESSAGE(text.find(part) != std::string::npos, part);
  }
}

TEST_CASE("every ublk feature that is asked for says what is missing without it") {
  uint64_t used = 0;
  for (const UblkFeature& feature : ublk_features()) {
    CHECK(feature.used == (feature.without[0] != '\0'));
    if (feature.used) used |= feature.bit;
  }
  CHECK(used == kUblkWanted);
}

}  // namespace
}  // namespace tidemark
