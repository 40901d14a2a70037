// Without the instruction: words are folded, by shifts and XORs alone, until ten are left, and
// those go through tables. The idea is that of Chorba (S. Russell, arXiv:2412.16398): a multiple of
// the polynomial with few terms says what a word is worth further on in the message. The multiple
// here is one that needs no memory but registers:
//
//   x^640 = x^384 + x^192 + x^164 + x^128 + x^99 + x^5 + 1
//
// The hardware path runs three independent streams over equal thirds of a stride, because the crc32
// instruction has a latency of three cycles and a throughput of one; the three results are joined
// by multiplying with x^(8 * stride third), which is linear and so a table look-up per byte of the
// CRC.
#include "core/crc32c.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstring>
#include <limits>
#include <utility>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define TIDEMARK_CRC_TARGET __attribute__((target("sse4.2")))
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#define TIDEMARK_CRC_TARGET __attribute__((target("+crc")))
#endif

namespace tidemark {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78u;

using ByteTable = std::array<uint32_t, 256>;

constexpr std::array<ByteTable, 8> make_slices() {
  std::array<ByteTable, 8> slices{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    slices[0][byte] = crc;
  }
  for (size_t slice = 1; slice < slices.size(); ++slice) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t below = slices[slice - 1][byte];
      slices[slice][byte] = (below >> 8) ^ slices[0][below & 0xff];
    }
  }
  return slices;
}

constexpr std::array<ByteTable, 8> kSlices = make_slices();

inline uint64_t load_word(const uint8_t* data) {
  uint64_t word;
  std::memcpy(&word, data, sizeof word);
  return word;
}

// `state` is the inverted CRC, as the instruction and the tables carry it.
uint32_t extend_by_tables(uint32_t state, const uint8_t* data, size_t length) {
  if constexpr (std::endian::native == std::endian::little) {
    for (; length >= 8; data += 8, length -= 8) {
      const uint64_t word = load_word(data) ^ state;
      // Written out: a loop is one branch and one variable shift a byte, which compilers keep, and
      // an emulated processor pays for.
      state = kSlices[7][word & 0xff] ^ kSlices[6][(word >> 8) & 0xff] ^
              kSlices[5][(word >> 16) & 0xff] ^ kSlices[4][(word >> 24) & 0xff] ^
              kSlices[3][(word >> 32) & 0xff] ^ kSlices[2][(word >> 40) & 0xff] ^
              kSlices[1][(word >> 48) & 0xff] ^ kSlices[0][word >> 56];
    }
  }
  for (; length > 0; ++data, --length) state = (state >> 8) ^ kSlices[0][(state ^ *data) & 0xff];
  return state;
}

// A word is 64 coefficients, the highest in its lowest bit; ten words that follow each other are in
// flight. The one in place `kTop` leaves: its product with the right-hand side above goes to some
// of the nine behind it and to `next`, the word that takes its place.
constexpr size_t kFolded = 10;
constexpr size_t kFoldMin = 4 * kFolded * sizeof(uint64_t);
using Words = std::array<uint64_t, kFolded>;

template <size_t kTop>
inline void fold(Words& words, uint64_t next) {
  const uint64_t top = words[kTop];
  // x^(64 n) is n places before the newest, and the rest of an exponent a shift, whose upper bits
  // fall into the place before that.
  const auto place = [&words](size_t n) -> uint64_t& {
    return words[(kTop + kFolded - n) % kFolded];
  };
  place(0) = next ^ top ^ (top >> 5);                            // 1, x^5
  place(1) ^= (top << (64 - 5)) ^ (top >> (99 - 64));            // x^5, x^99
  place(2) ^= (top << (128 - 99)) ^ top ^ (top >> (164 - 128));  // x^99, x^128, x^164
  place(3) ^= (top << (192 - 164)) ^ top;                        // x^164, x^192
  place(6) ^= top;                                               // x^384
}

template <size_t... kPlaces>
inline void fold_all(Words& words, const uint8_t* data, std::index_sequence<kPlaces...>) {
  (fold<kPlaces>(words, load_word(data + kPlaces * sizeof(uint64_t))), ...);
}

uint32_t extend_portable(uint32_t state, const uint8_t* data, size_t length) {
  if (std::endian::native != std::endian::little || length < kFoldMin) {
    return extend_by_tables(state, data, length);
  }
  Words words;
  std::memcpy(words.data(), data, sizeof words);
  words[0] ^= state;
  for (;;) {
    data += sizeof words;
    length -= sizeof words;
    if (length < sizeof words) break;
    fold_all(words, data, std::make_index_sequence<kFolded>());
  }
  state = extend_by_tables(0, reinterpret_cast<const uint8_t*>(words.data()), sizeof words);
  return extend_by_tables(state, data, length);
}

#ifdef TIDEMARK_CRC_TARGET

// Bytes of one stream in a stride: a block of 4 KiB is one stride and two words.
constexpr size_t kThird = 1360;

// The state after `bytes` zero bytes, as a linear map: four tables, one per byte of the state.
constexpr std::array<ByteTable, 4> make_shift(size_t bytes) {
  std::array<uint32_t, 32> images{};
  for (uint32_t bit = 0; bit < 32; ++bit) {
    uint32_t state = uint32_t{1} << bit;
    for (size_t i = 0; i < bytes; ++i) state = (state >> 8) ^ kSlices[0][state & 0xff];
    images[bit] = state;
  }
  std::array<ByteTable, 4> shift{};
  for (uint32_t byte = 0; byte < 4; ++byte) {
    for (uint32_t value = 0; value < 256; ++value) {
      for (uint32_t bit = 0; bit < 8; ++bit) {
        if ((value >> bit) & 1) shift[byte][value] ^= images[byte * 8 + bit];
      }
    }
  }
  return shift;
}

const std::array<ByteTable, 4> kShiftThird = make_shift(kThird);

uint32_t shift_third(uint32_t state) {
  return kShiftThird[0][state & 0xff] ^ kShiftThird[1][(state >> 8) & 0xff] ^
         kShiftThird[2][(state >> 16) & 0xff] ^ kShiftThird[3][state >> 24];
}

TIDEMARK_CRC_TARGET inline uint64_t step8(uint64_t state, const uint8_t* data) {
  const uint64_t word = load_word(data);
#if defined(__x86_64__)
  return _mm_crc32_u64(state, word);
#else
  return __crc32cd(static_cast<uint32_t>(state), word);
#endif
}

TIDEMARK_CRC_TARGET inline uint32_t step1(uint32_t state, uint8_t byte) {
#if defined(__x86_64__)
  return _mm_crc32_u8(state, byte);
#else
  return __crc32cb(state, byte);
#endif
}

TIDEMARK_CRC_TARGET uint32_t extend_hardware(uint32_t state, const uint8_t* data, size_t length) {
  while (length >= 3 * kThird) {
    uint64_t first = state;
    uint64_t second = 0;
    uint64_t third = 0;
    for (size_t i = 0; i < kThird; i += 8) {
      first = step8(first, data + i);
      second = step8(second, data + kThird + i);
      third = step8(third, data + 2 * kThird + i);
    }
    state = shift_third(static_cast<uint32_t>(first)) ^ static_cast<uint32_t>(second);
    state = shift_third(state) ^ static_cast<uint32_t>(third);
    data += 3 * kThird;
    length -= 3 * kThird;
  }
  uint64_t wide = state;
  for (; length >= 8; data += 8, length -= 8) wide = step8(wide, data);
  state = static_cast<uint32_t>(wide);
  for (; length > 0; ++data, --length) state = step1(state, *data);
  return state;
}

bool has_hardware() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("sse4.2") != 0;
#else
  constexpr unsigned long kHwcapCrc32 = 1ul << 7;
  return (getauxval(AT_HWCAP) & kHwcapCrc32) != 0;
#endif
}

using Extend = uint32_t (*)(uint32_t state, const uint8_t* data, size_t length);

// The shortest of a few turns over a block of metadata, in nanoseconds.
int64_t time_of(Extend extend) {
  static constexpr std::array<uint8_t, 4096> kBlock{};
  int64_t shortest = std::numeric_limits<int64_t>::max();
  volatile uint32_t state = 0;  // or the compiler leaves it out
  for (int turn = 0; turn < 5; ++turn) {
    const auto begin = std::chrono::steady_clock::now();
    state = extend(state, kBlock.data(), kBlock.size());
    shortest = std::min<int64_t>(shortest, (std::chrono::steady_clock::now() - begin).count());
  }
  return shortest;
}

// Measured, because it need not be: QEMU's emulator does the x86 instruction bit by bit.
bool hardware_is_faster() {
  return has_hardware() && time_of(extend_hardware) <= time_of(extend_portable);
}

#endif  // TIDEMARK_CRC_TARGET

}  // namespace

uint32_t crc32c_portable(uint32_t crc, const void* data, size_t length) {
  return ~extend_portable(~crc, static_cast<const uint8_t*>(data), length);
}

uint32_t crc32c(uint32_t crc, const void* data, size_t length) {
#ifdef TIDEMARK_CRC_TARGET
  static const bool hardware = hardware_is_faster();
  if (hardware) return ~extend_hardware(~crc, static_cast<const uint8_t*>(data), length);
#endif
  return crc32c_portable(crc, data, length);
}

}  // namespace tidemark
