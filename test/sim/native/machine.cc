#include "machine.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "core/block_image.h"
#include "core/log_block.h"
#include "pair.h"
#include "process.h"

namespace tidemark::sim {
namespace {

uint64_t whole_pages(uint64_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes; }

Layout layout_of(const Geometry& geometry) {
  if (const auto error = check_geometry(geometry)) throw std::runtime_error(*error);
  return make_layout(geometry);
}

Uuid make_uuid(Random& random) {
  Uuid uuid;
  for (size_t at = 0; at < sizeof uuid.bytes; at += sizeof(uint64_t)) {
    const uint64_t word = random.next();
    std::memcpy(uuid.bytes + at, &word, sizeof word);
  }
  return uuid;
}

constexpr size_t kMeta = static_cast<size_t>(IoTarget::kMeta);

}  // namespace

int MetadataArea::read(uint64_t offset, void* buffer, size_t bytes) {
  if (faults_ != nullptr && random_->one_in(faults_->read_error_one_in[kMeta])) return -EIO;
  disk_.read(base_ + offset, static_cast<uint8_t*>(buffer), bytes);
  return 0;
}

int MetadataArea::write(uint64_t offset, const void* buffer, size_t bytes) {
  const auto* data = static_cast<const uint8_t*>(buffer);
  if (faults_ != nullptr && random_->one_in(faults_->write_error_one_in[kMeta])) {
    disk_.write_torn(base_ + offset, data, bytes, false, *random_);
    return -EIO;
  }
  disk_.write(base_ + offset, data, bytes, false);
  return 0;
}

int MetadataArea::flush() { return flush_disk(disk_, IoTarget::kMeta); }

int MetadataArea::flush_data() {
  return data_ == nullptr ? 0 : flush_disk(*data_, IoTarget::kData);
}

int MetadataArea::flush_disk(Disk& disk, IoTarget target) {
  const auto at = static_cast<size_t>(target);
  if (faults_ != nullptr && random_->one_in(faults_->flush_error_one_in[at])) {
    disk.flush_failed(disk.flush_point(), *random_);
    return -EIO;
  }
  disk.flush(disk.flush_point());
  return 0;
}

Machine::Machine(MachineOptions options)
    : random(options.seed),
      options_(std::move(options)),
      layout_(layout_of(options_.geometry)),
      meta_offset_(options_.external ? 0 : whole_pages(layout_.geometry.volume_bytes)),
      data_(data_disk_bytes(), options_.volatile_cache),
      meta_(options_.external ? layout_.bytes() : 0, options_.volatile_cache) {
  if (options_.block_bytes != kSectorSize && options_.block_bytes != kBlockSize)
    throw std::runtime_error("blockBytes is " + std::to_string(options_.block_bytes) +
                             ": expected 512 or 4096");
  if (volume_bytes() % options_.block_bytes != 0)
    throw std::runtime_error("volumeBytes is " + std::to_string(volume_bytes()) +
                             ": expected a multiple of blockBytes");
  create();
}

Machine::~Machine() { Pair::forget(*this); }

uint64_t Machine::data_disk_bytes() const {
  const uint64_t data = whole_pages(layout_.geometry.volume_bytes);
  return options_.external ? data : data + layout_.bytes();
}

// As csrc/engine/create.cc does it, on a disk of zeroes.
void Machine::create() {
  Superblock sb;
  sb.serial = 1;
  sb.placement = options_.external ? Placement::kExternal : Placement::kEnd;
  sb.block_bytes = options_.block_bytes;
  sb.device_bytes = data_.bytes();
  sb.meta_offset = meta_offset_;
  sb.geometry = layout_.geometry;
  sb.metadata_id = make_uuid(random);
  sb.node_id = make_uuid(random);
  std::strncpy(sb.name, options_.name.c_str(), sizeof sb.name - 1);
  node_id_ = sb.node_id;
  MetadataArea area(meta(), meta_offset_);
  if (const auto failed = create_metadata(area, sb, layout_, true))
    throw std::runtime_error(failed->message);
}

void Machine::attach(Disk& disk, Disk* data, Random* chance, const Faults* wanted,
                     std::unique_ptr<Attachment>* out, MetadataError* error) const {
  MetadataArea area(disk, meta_offset_, chance, wanted, data);
  const Expectation expected{data_.bytes(), options_.block_bytes};
  if (auto failed = attach_metadata(area, layout_.bytes(), expected, out)) *error = *failed;
}

void Machine::replace_disk() {
  if (process != nullptr) throw std::runtime_error("the disk is replaced under an open volume");
  late.land_all(random);
  data_.replace(Disk(data_disk_bytes(), options_.volatile_cache));
  meta_.replace(Disk(options_.external ? layout_.bytes() : 0, options_.volatile_cache));
  late.forget();
  create();
}

std::string Machine::dump() {
  MetadataArea area(meta(), meta_offset_);
  return dump_metadata(area, layout_.bytes());
}

uint64_t Machine::durable_current() const {
  uint64_t current = kGenerationNone;
  uint64_t serial = 0;
  for (const uint32_t copy : {0u, 1u}) {
    const uint64_t page = meta_offset_ / kPageBytes + layout_.superblock_block(copy);
    const std::span<const uint8_t, kBlockSize> block(meta().durable().at(page).bytes(), kBlockSize);
    const SuperblockParse parse = parse_superblock(block);
    if (parse.error != SuperblockError::kNone || parse.superblock.serial < serial) continue;
    current = parse.superblock.current;
    serial = parse.superblock.serial;
  }
  return current;
}

// Garbage over one block that was written. Of the log never the newest block: its loss looks like
// a torn tail, and no format could tell (R15).
std::string Machine::rot(RotKind kind) {
  const Geometry& geometry = layout_.geometry;
  uint64_t first = 0;
  uint64_t count = 1;
  const char* what = "superblock";
  if (kind == RotKind::kMap) {
    what = "map";
    first = layout_.map_first_block;
    count = geometry.peer_slots * layout_.map_slot_blocks;
  } else if (kind == RotKind::kLog) {
    what = "log";
    first = layout_.log_first_block;
    count = layout_.log_ring_blocks;
  } else {
    first = layout_.superblock_block(static_cast<uint32_t>(random.below(2)));
  }
  const uint64_t base = meta_offset_ / kPageBytes;
  std::vector<uint64_t> written;
  uint64_t newest = 0;
  uint64_t newest_number = 0;
  Superblock sb;
  std::vector<std::string> warnings;
  MetadataArea area(meta(), meta_offset_);
  const bool known = !read_superblock(area, layout_.bytes(), &sb, &warnings);
  for (uint64_t block = first; block < first + count; ++block) {
    const PageRef& page = meta().durable().at(base + block);
    if (!page) continue;
    written.push_back(block);
    if (kind != RotKind::kLog || !known) continue;
    LogBlockName name{0, sb.node_slot, geometry.log_extents};
    std::memcpy(&name.metadata_id, sb.metadata_id.bytes, sizeof name.metadata_id);
    LogTransaction transaction;
    const std::span<const uint8_t, kBlockSize> bytes(page.bytes(), kBlockSize);
    if (parse_log_block(name, bytes, &transaction) == LogBlockStatus::kGood &&
        transaction.number >= newest_number) {
      newest = block;
      newest_number = transaction.number;
    }
  }
  if (newest != 0) std::erase(written, newest);
  if (written.empty()) return std::string("no ") + what + " block to rot";
  const uint64_t block = written[random.below(written.size())];
  uint8_t garbage[kBlockSize];
  std::memcpy(garbage, meta().durable().at(base + block).bytes(), kBlockSize);
  // A small volume's map leaves most of its block empty: what rots is what stands for something.
  // The header often stays, so that the checksum alone can tell.
  uint64_t begin = 0;
  uint64_t used = kBlockSize;
  if (kind == RotKind::kMap) {
    const uint64_t bits = geometry.volume_bytes / geometry.chunk_bytes;
    begin = kMapBlockHeaderBytes;
    used = begin + (std::min(bits, kMapBlockChunks) + 7) / 8;
  }
  const uint64_t style = random.below(3);
  if (style == 0) {
    garbage[random.below(used)] ^= static_cast<uint8_t>(1u << random.below(8));
  } else {
    const uint64_t sectors = (used + kSectorBytes - 1) / kSectorBytes;
    const uint64_t sector = random.below(sectors) * kSectorBytes;
    const uint64_t end = style == 1 ? sector + kSectorBytes : kBlockSize;
    for (uint64_t at = style == 1 ? std::max(sector, begin) : sector; at < end; ++at)
      garbage[at] = static_cast<uint8_t>(random.next());
  }
  meta().write((base + block) * kPageBytes, garbage, kBlockSize, true);
  return std::string(what) + " block " + std::to_string(block) + " rotted" +
         (style == 0   ? " by a bit"
          : style == 1 ? " by a sector"
                       : " from a sector on");
}

void Machine::claim_newer(bool newer) {
  const uint32_t version = newer ? kFormatVersion + 1 : kFormatVersion;
  constexpr size_t kVersionAt = 8;
  constexpr size_t kChecksumAt = 12;
  for (const uint32_t copy : {0u, 1u}) {
    const uint64_t page = meta_offset_ / kPageBytes + layout_.superblock_block(copy);
    uint8_t block[kBlockSize];
    std::memcpy(block, meta().durable().at(page).bytes(), kBlockSize);
    std::memcpy(block + kVersionAt, &version, sizeof version);
    const uint32_t crc = crc32c_without_field(block, kChecksumAt);
    std::memcpy(block + kChecksumAt, &crc, sizeof crc);
    meta().write(page * kPageBytes, block, kBlockSize, true);
  }
}

void Machine::violate(const std::string& what) {
  if (violation_.empty()) violation_ = "machine " + options_.name + ": " + what;
}

}  // namespace tidemark::sim
