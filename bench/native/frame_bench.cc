// Frames as the link makes and reads them: header, payload checksum, acknowledgements.
#include <benchmark/benchmark.h>

#include <array>
#include <cstring>
#include <vector>

#include "core/frame.h"

namespace tidemark {
namespace {

FrameHeader data_header(uint32_t bytes) {
  FrameHeader header;
  header.type = FrameType::kData;
  header.flags = kFrameAckWritten;
  header.incarnation = 7;
  header.sequence = 1;
  header.offset = uint64_t{1} << 40;
  header.length = bytes;
  header.payload_bytes = bytes;
  return header;
}

void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgName("bytes")->Arg(4096)->Arg(64 << 10)->Arg(1 << 20);
}

void encode_header(benchmark::State& state) {
  FrameHeader header = data_header(4096);
  std::array<uint8_t, kFrameHeaderBytes> image;
  for (auto _ : state) {
    ++header.sequence;
    encode_frame_header(header, image);
    benchmark::DoNotOptimize(image);
  }
}
BENCHMARK(encode_header);

void parse_header(benchmark::State& state) {
  std::array<uint8_t, kFrameHeaderBytes> image;
  encode_frame_header(data_header(4096), image);
  FrameHeader header;
  for (auto _ : state) {
    benchmark::DoNotOptimize(image);
    benchmark::DoNotOptimize(parse_frame_header(image, &header));
  }
}
BENCHMARK(parse_header);

// Into a ring that stays in the cache: header, checksum, copy.
void encode_data(benchmark::State& state) {
  const auto bytes = static_cast<uint32_t>(state.range(0));
  const std::vector<uint8_t> payload(bytes, 0x5a);
  std::vector<uint8_t> ring(kFrameHeaderBytes + bytes);
  FrameHeader header = data_header(bytes);
  for (auto _ : state) {
    ++header.sequence;
    header.payload_crc = frame_payload_crc(payload);
    encode_frame_header(header,
                        std::span<uint8_t, kFrameHeaderBytes>(ring.data(), kFrameHeaderBytes));
    std::memcpy(ring.data() + kFrameHeaderBytes, payload.data(), bytes);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}
BENCHMARK(encode_data)->Apply(sizes);

void parse_data(benchmark::State& state) {
  const auto bytes = static_cast<uint32_t>(state.range(0));
  const std::vector<uint8_t> payload(bytes, 0x5a);
  std::vector<uint8_t> place(bytes);
  FrameHeader header = data_header(bytes);
  header.payload_crc = frame_payload_crc(payload);
  std::array<uint8_t, kFrameHeaderBytes> image;
  encode_frame_header(header, image);
  for (auto _ : state) {
    FrameHeader found;
    bool good = parse_frame_header(image, &found) == FrameError::kNone;
    std::memcpy(place.data(), payload.data(), bytes);
    good = good && frame_payload_crc(place) == found.payload_crc;
    benchmark::DoNotOptimize(good);
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}
BENCHMARK(parse_data)->Apply(sizes);

// An acknowledgement of `ranges` runs of writes.
void acknowledge(benchmark::State& state) {
  const auto count = static_cast<size_t>(state.range(0));
  std::vector<WrittenRange> ranges(count);
  for (size_t i = 0; i < count; ++i) ranges[i] = {i * 8 + 1, 4, 0};
  std::vector<uint8_t> payload(count * kWrittenRangeBytes);
  std::vector<WrittenRange> parsed;
  for (auto _ : state) {
    encode_written(ranges, payload.data());
    benchmark::DoNotOptimize(parse_written(payload, &parsed));
  }
}
BENCHMARK(acknowledge)->ArgName("ranges")->Arg(1)->Arg(64);

}  // namespace
}  // namespace tidemark
