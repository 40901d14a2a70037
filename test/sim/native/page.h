// Content of simulated disks: 4 KiB pages that are never changed once others may see them, so that
// disks, their caches and clones of them share what is equal. A null page reads as zeroes.
//
// One thread: the counts are plain numbers.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace tidemark::sim {

inline constexpr uint32_t kPageBytes = 4096;
inline constexpr uint32_t kSectorBytes = 512;
inline constexpr uint32_t kPageSectors = kPageBytes / kSectorBytes;
inline constexpr uint8_t kAllSectors = 0xff;

struct Page {
  alignas(64) uint8_t bytes[kPageBytes];
  uint32_t references;
  Page* next_free;
  // What stamps its sectors have, once somebody asked: of a page at this place of the volume.
  uint64_t stamped_page;
  int64_t stamps[kPageSectors];
};
inline constexpr uint64_t kNotStamped = UINT64_MAX;

class PageRef {
 public:
  PageRef() = default;
  PageRef(const PageRef& other) : page_(other.page_) {
    if (page_ != nullptr) ++page_->references;
  }
  PageRef(PageRef&& other) noexcept : page_(std::exchange(other.page_, nullptr)) {}
  PageRef& operator=(PageRef other) noexcept {
    std::swap(page_, other.page_);
    return *this;
  }
  ~PageRef() {
    if (page_ != nullptr && --page_->references == 0) recycle(page_);
  }
  // Content undefined; whoever makes it fills it before anybody else sees it.
  static PageRef make();

  explicit operator bool() const { return page_ != nullptr; }
  // For whoever made it, and before it is shared.
  uint8_t* fill() { return page_->bytes; }
  // Never null.
  const uint8_t* bytes() const;
  bool same_page(const PageRef& other) const { return page_ == other.page_; }
  bool equals(const PageRef& other) const;
  // Of its sectors (stamp.h), if it lies at `page` of a volume. Read once: its content stays.
  void stamps(uint64_t page, int64_t (&out)[kPageSectors]) const;

 private:
  static void recycle(Page* page);
  Page* page_ = nullptr;
};

// The pages of a whole disk, by number. A copy shares everything and costs a pointer for each 64
// pages.
class PageTable {
 public:
  explicit PageTable(uint64_t pages);
  PageTable(const PageTable& other);
  PageTable& operator=(PageTable other) noexcept {
    leaves_.swap(other.leaves_);
    return *this;
  }
  ~PageTable();

  const PageRef& at(uint64_t page) const;
  void set(uint64_t page, PageRef content);

 private:
  static constexpr uint64_t kLeafPages = 64;
  struct Leaf {
    uint32_t references = 1;
    PageRef pages[kLeafPages];
  };
  std::vector<Leaf*> leaves_;  // null: zeroes
};

}  // namespace tidemark::sim
