// Content of a sector that says what it is: its number on the volume and the stamp of the write it
// came from. Whoever reads it can judge every byte.
#pragma once

#include <cstdint>

namespace tidemark::sim {

inline constexpr int64_t kStampZeroes = 0;
inline constexpr int64_t kStampForeign =
    -1;  // torn inside of the sector, misplaced, or never written

inline constexpr uint64_t kStampMax = (uint64_t{1} << 48) - 1;

void fill_sector(uint8_t* bytes, uint64_t sector, uint64_t stamp);
int64_t read_sector(const uint8_t* bytes, uint64_t sector);

// Tells whether a buffer is still the same: of the beginning of each sector, where stamps are, and
// the marks of a buffer that was given back.
uint64_t fingerprint(const uint8_t* bytes, uint64_t length);

}  // namespace tidemark::sim
