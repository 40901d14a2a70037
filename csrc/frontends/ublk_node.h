// The files of a ublk device in /dev, /sys and /proc: its nodes, and who uses it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tidemark {

std::string ublk_block_path(uint32_t device_id);  // "/dev/ublkb0"
std::string ublk_char_path(uint32_t device_id);   // "/dev/ublkc0"

// Ids of all devices that the driver has.
std::vector<uint32_t> ublk_device_ids();

// What in /proc/self/mountinfo is mounted from one of these devices ("252:0"), or from `path` or a
// partition of it (some filesystems have device numbers of their own): the mount points.
std::vector<std::string> ublk_mounts_in(std::string_view mountinfo,
                                        const std::vector<std::string>& device_numbers,
                                        std::string_view path);

// Where the device or a partition of it is mounted, in this mount namespace.
std::vector<std::string> ublk_mounts(uint32_t device_id);

// Mounts in this mount namespace and holders (device mapper, MD): "mounted on /mnt", "held by
// dm-0"; empty when there are none. Does not touch the device, so that the volume's thread may ask.
std::string ublk_mounts_and_holders(uint32_t device_id);

// Whether some process holds /dev/ublkcN open.
bool ublk_served(uint32_t device_id);

// Whether a process of this id exists; not for ids below 1.
bool ublk_process_exists(int process_id);

// A process that has the block device or a partition open: "open by fio (process 12)"; empty: none
// that is visible here. Looks through /proc.
std::string ublk_openers(uint32_t device_id);

}  // namespace tidemark
