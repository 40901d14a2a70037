// CRC32C (Castagnoli, reflected 0x82f63b78), in hardware where the CPU has it (SSE4.2, ARMv8 CRC)
// and that is faster than shifts and tables, measured at first use.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidemark {

// crc32c(0, "123456789", 9) == 0xe3069283. Pass the previous result to go on with more bytes.
uint32_t crc32c(uint32_t crc, const void* data, size_t length);

// The fallback, whatever the CPU has: for tests and comparison.
uint32_t crc32c_portable(uint32_t crc, const void* data, size_t length);

}  // namespace tidemark
