// What a ublk device is to the block layer: parameters made from the volume's shape, the check
// that a device found quiesced still fits the volume, and the names of the driver's features. No
// system calls.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "frontends/ublk_options.h"
#include "vendor/linux/ublk_cmd.h"

namespace tidemark {

inline constexpr uint32_t kUblkDepthMax = UBLK_MAX_QUEUE_DEPTH;
inline constexpr uint32_t kUblkIoBytesMin = 4096;
inline constexpr uint32_t kUblkIoBytesMax = 1u << 20;
inline constexpr uint32_t kUblkDiscardBytesMax = 64u << 20;  // one discard or write-zeroes request

// The features asked for with ADD_DEV. The device survives its daemon, and requests that the daemon
// had taken are given to the next one.
inline constexpr uint64_t kUblkWanted =
    UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE;

// What of the volume shows in the device.
struct UblkShape {
  uint64_t volume_bytes = 0;
  uint32_t block_bytes = 512;
  bool can_discard = false;
  bool fast_zeroes = false;
};

// What is wrong with the options; empty: nothing.
std::string ublk_options_problem(const UblkOptions& options);

// What is wrong with the volume for ublk; empty: nothing.
std::string ublk_shape_problem(const UblkShape& shape);

ublk_params ublk_params_for(const UblkShape& shape, uint32_t max_io_bytes);

// Why the device that has `found` cannot go on with a volume of this shape; empty: it can. What
// users of the device rely on must hold; hints (physical block, optimal size) may differ.
std::string ublk_params_mismatch(const ublk_params& found, const UblkShape& shape);

// Tidemark's mark in ublksrv_ctrl_dev_info::ublksrv_flags, which the kernel keeps and does not
// read.
uint64_t ublk_mark(uint32_t volume_tag);
bool ublk_marked(uint64_t ublksrv_flags);
uint32_t ublk_mark_tag(uint64_t ublksrv_flags);

// One feature bit of the driver.
struct UblkFeature {
  uint64_t bit;
  const char* name;     // as in ublk_cmd.h, without UBLK_F_
  bool used;            // Tidemark asks for it
  bool required;        // and does not work without
  const char* without;  // what is missing then; for used ones
};
std::span<const UblkFeature> ublk_features();

const char* ublk_state_name(uint16_t state);

}  // namespace tidemark
