// What a ublk device is started with.
#pragma once

#include <cstdint>

namespace tidemark {

struct UblkOptions {
  int device_id = -1;                  // N of /dev/ublkbN; -1: the kernel chooses
  uint16_t queue_depth = 128;          // 1..4096
  uint32_t max_io_bytes = 512u << 10;  // 4 KiB..1 MiB, multiple of 4 KiB
  bool recover = false;                // take over the quiesced device `device_id`
  // Kept in the device, so that another volume of the same size cannot take it over: any number
  // made from the volume's identity. 0: not checked.
  uint32_t volume_tag = 0;
};

}  // namespace tidemark
