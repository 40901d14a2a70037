#include "disk.h"

#include <algorithm>
#include <cstring>

namespace tidemark::sim {
namespace {

// `base` with the sectors of `mask` taken from `from`.
PageRef merged(const PageRef& base, const PageRef& from, uint8_t mask) {
  if (mask == kAllSectors) return from;
  PageRef page = PageRef::make();
  const uint8_t* old = base.bytes();
  const uint8_t* fresh = from.bytes();
  for (uint32_t sector = 0; sector < kPageSectors; ++sector) {
    const uint32_t at = sector * kSectorBytes;
    const bool taken = (mask >> sector & 1) != 0;
    std::memcpy(page.fill() + at, (taken ? fresh : old) + at, kSectorBytes);
  }
  return page;
}

}  // namespace

Disk::Disk(uint64_t bytes, bool volatile_cache)
    : bytes_(bytes),
      volatile_cache_(volatile_cache),
      cached_(bytes / kPageBytes),
      durable_(bytes / kPageBytes),
      volatile_index_(bytes / kPageBytes, kClean) {}

std::vector<uint64_t> Disk::volatile_pages() const {
  std::vector<uint64_t> pages;
  pages.reserve(volatile_.size());
  for (const Volatile& entry : volatile_) pages.push_back(entry.page);
  return pages;
}

void Disk::read(uint64_t offset, uint8_t* out, uint64_t length) const {
  while (length > 0) {
    const uint32_t begin = offset % kPageBytes;
    const uint64_t part = std::min<uint64_t>(length, kPageBytes - begin);
    std::memcpy(out, cached_.at(offset / kPageBytes).bytes() + begin, part);
    offset += part;
    out += part;
    length -= part;
  }
}

Disk::Volatile& Disk::volatile_of(uint64_t page) {
  uint32_t& index = volatile_index_[page];
  if (index == kClean) {
    index = static_cast<uint32_t>(volatile_.size());
    volatile_.push_back({page, {}});
  }
  return volatile_[index];
}

void Disk::forget_volatile(uint32_t index) {
  volatile_index_[volatile_[index].page] = kClean;
  if (index + 1 != volatile_.size()) {
    volatile_[index] = std::move(volatile_.back());
    volatile_index_[volatile_[index].page] = index;
  }
  volatile_.pop_back();
}

void Disk::make_durable(uint64_t page, uint8_t mask, const PageRef& content) {
  durable_.set(page, merged(durable_.at(page), content, mask));
  tell_durable(page);
  const uint32_t index = volatile_index_[page];
  if (index == kClean) return;
  // What was written to these sectors before cannot come back.
  std::vector<Version>& versions = volatile_[index].versions;
  for (Version& version : versions) version.mask &= static_cast<uint8_t>(~mask);
  std::erase_if(versions, [](const Version& version) { return version.mask == 0; });
  if (versions.empty()) forget_volatile(index);
}

void Disk::write_page(uint64_t page, uint32_t begin, uint32_t end, const uint8_t* data, bool fua) {
  PageRef content;
  if (begin != 0 || end != kPageBytes) {
    content = PageRef::make();
    std::memcpy(content.fill(), cached_.at(page).bytes(), kPageBytes);
    data != nullptr ? std::memcpy(content.fill() + begin, data, end - begin)
                    : std::memset(content.fill() + begin, 0, end - begin);
  } else if (data != nullptr) {
    content = PageRef::make();
    std::memcpy(content.fill(), data, kPageBytes);
  }
  const uint32_t count = (end - begin) / kSectorBytes;
  const auto mask = static_cast<uint8_t>(((1u << count) - 1) << (begin / kSectorBytes));
  cached_.set(page, content);
  tell_cached(page);
  if (fua || !volatile_cache_) {
    make_durable(page, mask, content);
  } else {
    volatile_of(page).versions.push_back({sequence_, mask, std::move(content)});
  }
}

void Disk::write(uint64_t offset, const uint8_t* data, uint64_t length, bool fua) {
  ++sequence_;
  while (length > 0) {
    const uint32_t begin = offset % kPageBytes;
    const auto part = static_cast<uint32_t>(std::min<uint64_t>(length, kPageBytes - begin));
    write_page(offset / kPageBytes, begin, begin + part, data, fua);
    offset += part;
    if (data != nullptr) data += part;
    length -= part;
  }
}

void Disk::write_torn(uint64_t offset, const uint8_t* data, uint64_t length, bool fua,
                      Random& random) {
  for (uint64_t at = 0; at < length; at += kSectorBytes) {
    if (random.below(2) == 0) continue;
    write(offset + at, data != nullptr ? data + at : nullptr, kSectorBytes, fua);
  }
}

void Disk::flush(uint64_t upto) {
  for (uint32_t index = 0; index < volatile_.size();) {
    Volatile& entry = volatile_[index];
    std::vector<Version>& versions = entry.versions;
    const auto covered = [&](const Version& version) { return version.sequence <= upto; };
    if (std::all_of(versions.begin(), versions.end(), covered)) {
      const uint64_t page = entry.page;
      forget_volatile(index);
      durable_.set(page, cached_.at(page));
      tell_durable(page);
      continue;
    }
    for (size_t at = 0; at < versions.size(); ++at) {
      if (!covered(versions[at])) continue;
      const uint8_t mask = versions[at].mask;
      durable_.set(entry.page, merged(durable_.at(entry.page), versions[at].content, mask));
      tell_durable(entry.page);
      for (size_t older = 0; older <= at; ++older)
        versions[older].mask &= static_cast<uint8_t>(~mask);
    }
    std::erase_if(versions, [](const Version& version) { return version.mask == 0; });
    if (versions.empty()) {
      forget_volatile(index);
    } else {
      ++index;
    }
  }
}

void Disk::flush_failed(uint64_t upto, Random& random) {
  for (Volatile& entry : volatile_) {
    if (random.below(2) == 0) continue;
    for (Version& version : entry.versions) {
      if (version.sequence <= upto) version.sequence = kNever;
    }
  }
}

void Disk::forgive() {
  for (Volatile& entry : volatile_) {
    for (Version& version : entry.versions) {
      if (version.sequence == kNever) version.sequence = 0;
    }
  }
}

namespace {
enum Style : uint64_t { kLost, kKept, kWhole, kTorn, kMixed };
}

// What is durable of a page after the power went.
PageRef Disk::left_after_cut(const Volatile& entry, uint64_t style, Random& random) const {
  const size_t count = entry.versions.size();
  PageRef content = durable_.at(entry.page);
  if (style == kKept) return cached_.at(entry.page);
  if (style == kWhole) {
    const uint64_t kept = random.below(count + 1);
    for (size_t at = 0; at < kept; ++at)
      content = merged(content, entry.versions[at].content, entry.versions[at].mask);
  } else if (style == kTorn) {
    for (uint32_t sector = 0; sector < kPageSectors; ++sector) {
      const auto bit = static_cast<uint8_t>(1u << sector);
      for (size_t at = random.below(count + 1); at-- > 0;) {
        if ((entry.versions[at].mask & bit) == 0) continue;
        content = merged(content, entry.versions[at].content, bit);
        break;
      }
    }
  }
  return content;
}

void Disk::power_cut(Random& random) {
  const uint64_t style = random.below(kMixed + 1);
  for (const Volatile& entry : volatile_) {
    const uint64_t here = style == kMixed ? random.below(kMixed) : style;
    PageRef content = left_after_cut(entry, here, random);
    volatile_index_[entry.page] = kClean;
    cached_.set(entry.page, content);
    durable_.set(entry.page, std::move(content));
    tell_cached(entry.page);
    tell_durable(entry.page);
  }
  volatile_.clear();
}

Disk Disk::clone() const {
  Disk out = *this;
  out.watchers_.clear();
  return out;
}

void Disk::unwatch(Watcher* watcher) { std::erase(watchers_, watcher); }

void Disk::replace(const Disk& other) {
  std::vector<Watcher*> watchers = std::move(watchers_);
  *this = other;
  watchers_ = std::move(watchers);
  for (uint64_t page = 0; page < pages(); ++page) {
    tell_cached(page);
    tell_durable(page);
  }
}

}  // namespace tidemark::sim
