#include "frontends/ublk_params.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

#include "core/types.h"

namespace tidemark {
namespace {

constexpr uint32_t kMark = 0x54694465;  // "TiDe"
constexpr uint32_t kPhysicalBytesMin = 4096;

uint8_t shift_of(uint32_t bytes) { return static_cast<uint8_t>(std::countr_zero(bytes)); }

constexpr UblkFeature kFeatures[] = {
    {UBLK_F_SUPPORT_ZERO_COPY, "SUPPORT_ZERO_COPY", false, false, ""},
    {UBLK_F_URING_CMD_COMP_IN_TASK, "URING_CMD_COMP_IN_TASK", false, false, ""},
    {UBLK_F_NEED_GET_DATA, "NEED_GET_DATA", false, false, ""},
    {UBLK_F_USER_RECOVERY, "USER_RECOVERY", true, false,
     "the device ends with its daemon: I/O fails when the daemon dies, and an upgrade needs the "
     "device unmounted"},
    {UBLK_F_USER_RECOVERY_REISSUE, "USER_RECOVERY_REISSUE", true, false,
     "requests that the daemon had taken when it died fail with EIO instead of being done by the "
     "next one"},
    {UBLK_F_UNPRIVILEGED_DEV, "UNPRIVILEGED_DEV", false, false, ""},
    {UBLK_F_CMD_IOCTL_ENCODE, "CMD_IOCTL_ENCODE", true, true,
     "no ublk device: the driver is older than Linux 6.4; use the NBD frontend"},
    {UBLK_F_USER_COPY, "USER_COPY", false, false, ""},
    {UBLK_F_ZONED, "ZONED", false, false, ""},
    // Newer than the vendored header; named for people only.
    {1ull << 9, "USER_RECOVERY_FAIL_IO", false, false, ""},
    {1ull << 10, "UPDATE_SIZE", false, false, ""},
    {1ull << 11, "AUTO_BUF_REG", false, false, ""},
    {1ull << 12, "QUIESCE", false, false, ""},
    {1ull << 13, "PER_IO_DAEMON", false, false, ""},
    {1ull << 14, "BUF_REG_OFF_DAEMON", false, false, ""},
    {1ull << 15, "BATCH_IO", false, false, ""},
    {1ull << 16, "INTEGRITY", false, false, ""},
    {1ull << 17, "SAFE_STOP_DEV", false, false, ""},
    {1ull << 18, "NO_AUTO_PART_SCAN", false, false, ""},
};

std::string differs(const char* what, uint64_t device, uint64_t volume, const char* unit) {
  return std::string(what) + ": the device has " + std::to_string(device) + unit +
         ", the volume needs " + std::to_string(volume) + unit;
}

}  // namespace

std::string ublk_options_problem(const UblkOptions& options) {
  if (options.queue_depth == 0 || options.queue_depth > kUblkDepthMax) {
    return "queue depth " + std::to_string(options.queue_depth) + " is out of range (1.." +
           std::to_string(kUblkDepthMax) + ")";
  }
  if (options.max_io_bytes < kUblkIoBytesMin || options.max_io_bytes > kUblkIoBytesMax ||
      options.max_io_bytes % kUblkIoBytesMin != 0) {
    return "largest request of " + std::to_string(options.max_io_bytes) +
           " bytes is out of range (4096..1048576) or not a multiple of 4096";
  }
  if (options.device_id < -1) {
    return "device id " + std::to_string(options.device_id) +
           " is out of range (0 or more; -1: the kernel chooses)";
  }
  if (options.recover && options.device_id < 0) {
    return "to take over a device its id must be given";
  }
  return {};
}

std::string ublk_shape_problem(const UblkShape& shape) {
  if (shape.block_bytes != 512 && shape.block_bytes != 4096) {
    return "logical block of " + std::to_string(shape.block_bytes) +
           " bytes; a ublk device takes 512 or 4096";
  }
  if (shape.volume_bytes == 0 || shape.volume_bytes % kSectorSize != 0) {
    return "volume of " + std::to_string(shape.volume_bytes) +
           " bytes; a ublk device needs whole sectors of 512 bytes, at least one";
  }
  return {};
}

ublk_params ublk_params_for(const UblkShape& shape, uint32_t max_io_bytes) {
  assert(ublk_shape_problem(shape).empty());
  const uint32_t physical = std::max(shape.block_bytes, kPhysicalBytesMin);
  ublk_params params = {};
  params.len = sizeof params;
  params.types = UBLK_PARAM_TYPE_BASIC;
  params.basic.attrs = UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA;
  params.basic.logical_bs_shift = shift_of(shape.block_bytes);
  params.basic.physical_bs_shift = shift_of(physical);
  // An optimal size beyond the physical block would be taken for a RAID stripe by mkfs.
  params.basic.io_min_shift = shift_of(physical);
  params.basic.io_opt_shift = shift_of(physical);
  params.basic.max_sectors = max_io_bytes / kSectorSize;
  params.basic.dev_sectors = shape.volume_bytes / kSectorSize;
  if (shape.can_discard || shape.fast_zeroes) {
    params.types |= UBLK_PARAM_TYPE_DISCARD;
    params.discard.discard_granularity = physical;
    params.discard.discard_alignment = 0;  // how far the device's start is off the granularity
    params.discard.max_discard_segments = 1;
    params.discard.max_write_zeroes_sectors = kUblkDiscardBytesMax / kSectorSize;
    if (shape.can_discard) params.discard.max_discard_sectors = kUblkDiscardBytesMax / kSectorSize;
  }
  return params;
}

std::string ublk_params_mismatch(const ublk_params& found, const UblkShape& shape) {
  if ((found.types & UBLK_PARAM_TYPE_BASIC) == 0) return "the device has no parameters";
  const ublk_param_basic& basic = found.basic;
  if (basic.dev_sectors != shape.volume_bytes / kSectorSize) {
    return differs("size", basic.dev_sectors * kSectorSize, shape.volume_bytes, " bytes");
  }
  if (basic.logical_bs_shift != shift_of(shape.block_bytes)) {
    return differs("logical block", 1ull << basic.logical_bs_shift, shape.block_bytes, " bytes");
  }
  constexpr uint32_t kCache = UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA;
  if ((basic.attrs & kCache) != kCache) {
    return "the device announces no volatile cache with FUA, so flushes would not reach the volume";
  }
  if ((basic.attrs & UBLK_ATTR_READ_ONLY) != 0) return "the device is read-only";
  const bool discard = (found.types & UBLK_PARAM_TYPE_DISCARD) != 0;
  if (discard && found.discard.max_discard_sectors != 0 && !shape.can_discard) {
    return "the device offers discard, which the volume cannot do on its backing any more";
  }
  return {};
}

uint64_t ublk_mark(uint32_t volume_tag) { return uint64_t{kMark} << 32 | volume_tag; }
bool ublk_marked(uint64_t ublksrv_flags) { return ublksrv_flags >> 32 == kMark; }
uint32_t ublk_mark_tag(uint64_t ublksrv_flags) { return static_cast<uint32_t>(ublksrv_flags); }

std::span<const UblkFeature> ublk_features() { return kFeatures; }

const char* ublk_state_name(uint16_t state) {
  switch (state) {
    case UBLK_S_DEV_DEAD:
      return "stopped";
    case UBLK_S_DEV_LIVE:
      return "live";
    case UBLK_S_DEV_QUIESCED:
      return "quiesced";
    default:
      return "in a state this version does not know";
  }
}

}  // namespace tidemark
