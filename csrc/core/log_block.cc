#include "core/log_block.h"

#include <algorithm>
#include <cassert>

#include "core/block_image.h"

namespace tidemark {
namespace {

constexpr char kMagic[8] = {'T', 'I', 'D', 'E', 'L', 'O', 'G', '1'};

struct UpdateImage {
  uint32_t slot;
  uint32_t extent;
};
static_assert(sizeof(UpdateImage) == 8);
static_assert(offsetof(UpdateImage, extent) == 4);

struct LogImage {
  char magic[8];
  uint64_t metadata_id;
  uint64_t number;
  uint32_t node_slot;
  uint32_t extents;
  uint32_t context_start;
  uint16_t update_count;
  uint16_t context_count;
  uint32_t crc;
  uint8_t reserved[20];
  UpdateImage updates[kLogUpdates];
  uint32_t context[kLogContext];
};
static_assert(sizeof(LogImage) == kBlockSize);  // 64 + 64 * 8 + 880 * 4
static_assert(offsetof(LogImage, metadata_id) == 8);
static_assert(offsetof(LogImage, number) == 16);
static_assert(offsetof(LogImage, node_slot) == 24);
static_assert(offsetof(LogImage, extents) == 28);
static_assert(offsetof(LogImage, context_start) == 32);
static_assert(offsetof(LogImage, update_count) == 36);
static_assert(offsetof(LogImage, context_count) == 38);
static_assert(offsetof(LogImage, crc) == 40);
static_assert(offsetof(LogImage, reserved) == 44);
static_assert(offsetof(LogImage, updates) == 64);
static_assert(offsetof(LogImage, context) == 576);

template <typename Unused>
bool is_zero(const Unused* from, const Unused* end) {
  return is_blank(
      {reinterpret_cast<const uint8_t*>(from), static_cast<size_t>(end - from) * sizeof(Unused)});
}

// Bounds of everything that a reader would index with.
bool fields_fit(const LogImage& image) {
  if (image.update_count > kLogUpdates || image.context_count > kLogContext) return false;
  if (image.context_start > image.extents ||
      image.context_count > image.extents - image.context_start) {
    return false;
  }
  for (uint32_t i = 0; i < image.update_count; ++i) {
    if (image.updates[i].slot >= image.extents) return false;
  }
  return is_blank(image.reserved) &&
         is_zero(image.updates + image.update_count, std::end(image.updates)) &&
         is_zero(image.context + image.context_count, std::end(image.context));
}

}  // namespace

void encode_log_block(const LogBlockName& name, const LogTransaction& transaction,
                      std::span<uint8_t, kBlockSize> out) {
  assert(transaction.updates.size() <= kLogUpdates && transaction.context.size() <= kLogContext);
  LogImage image{};
  std::memcpy(image.magic, kMagic, sizeof kMagic);
  image.metadata_id = name.metadata_id;
  image.number = transaction.number;
  image.node_slot = name.node_slot;
  image.extents = name.extents;
  image.context_start = transaction.context_start;
  image.update_count = static_cast<uint16_t>(transaction.updates.size());
  image.context_count = static_cast<uint16_t>(transaction.context.size());
  for (size_t i = 0; i < transaction.updates.size(); ++i) {
    image.updates[i] = {transaction.updates[i].slot, transaction.updates[i].extent};
  }
  std::copy(transaction.context.begin(), transaction.context.end(), image.context);
  assert(fields_fit(image));
  image.crc = crc32c(0, &image, sizeof image);  // its own field is zero still
  store_image(image, out.data());
}

LogBlockStatus parse_log_block(const LogBlockName& expected,
                               std::span<const uint8_t, kBlockSize> block, LogTransaction* out) {
  if (is_blank(block)) return LogBlockStatus::kNeverWritten;
  const auto image = load_image<LogImage>(block.data());
  const bool good = std::memcmp(image.magic, kMagic, sizeof kMagic) == 0 &&
                    image.crc == crc32c_without_field(block, offsetof(LogImage, crc)) &&
                    image.metadata_id == expected.metadata_id &&
                    image.node_slot == expected.node_slot && image.extents == expected.extents &&
                    fields_fit(image);
  if (!good) return LogBlockStatus::kUntrusted;
  out->number = image.number;
  out->updates.clear();
  for (uint32_t i = 0; i < image.update_count; ++i) {
    out->updates.push_back({image.updates[i].slot, image.updates[i].extent});
  }
  out->evicted.clear();
  out->context_start = image.context_start;
  out->context.assign(image.context, image.context + image.context_count);
  return LogBlockStatus::kGood;
}

}  // namespace tidemark
