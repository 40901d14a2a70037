#include "page.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "stamp.h"

namespace tidemark::sim {
namespace {

constexpr size_t kBatch = 64;
const Page kZeroes = {};

// Pages go back to this list and are never given back: a seed's pages are the next seed's.
Page* free_pages = nullptr;
std::vector<std::unique_ptr<Page[]>>& page_memory() {
  static auto* memory = new std::vector<std::unique_ptr<Page[]>>();
  return *memory;
}

}  // namespace

PageRef PageRef::make() {
  if (free_pages == nullptr) {
    page_memory().emplace_back(new Page[kBatch]);
    Page* batch = page_memory().back().get();
    for (size_t i = 0; i < kBatch; ++i) {
      batch[i].next_free = free_pages;
      free_pages = &batch[i];
    }
  }
  PageRef made;
  made.page_ = free_pages;
  free_pages = free_pages->next_free;
  made.page_->references = 1;
  made.page_->stamped_page = kNotStamped;
  return made;
}

void PageRef::recycle(Page* page) {
  page->next_free = free_pages;
  free_pages = page;
}

const uint8_t* PageRef::bytes() const { return page_ != nullptr ? page_->bytes : kZeroes.bytes; }

bool PageRef::equals(const PageRef& other) const {
  return page_ == other.page_ || std::memcmp(bytes(), other.bytes(), kPageBytes) == 0;
}

void PageRef::stamps(uint64_t page, int64_t (&out)[kPageSectors]) const {
  if (page_ == nullptr) {
    std::fill(std::begin(out), std::end(out), kStampZeroes);
    return;
  }
  if (page_->stamped_page != page) {
    for (uint64_t sector = 0; sector < kPageSectors; ++sector) {
      const uint8_t* bytes = page_->bytes + sector * kSectorBytes;
      page_->stamps[sector] = read_sector(bytes, page * kPageSectors + sector);
    }
    page_->stamped_page = page;
  }
  std::copy(std::begin(page_->stamps), std::end(page_->stamps), std::begin(out));
}

PageTable::PageTable(uint64_t pages) : leaves_((pages + kLeafPages - 1) / kLeafPages, nullptr) {}

PageTable::PageTable(const PageTable& other) : leaves_(other.leaves_) {
  for (Leaf* leaf : leaves_) {
    if (leaf != nullptr) ++leaf->references;
  }
}

PageTable::~PageTable() {
  for (Leaf* leaf : leaves_) {
    if (leaf != nullptr && --leaf->references == 0) delete leaf;
  }
}

const PageRef& PageTable::at(uint64_t page) const {
  static const PageRef zeroes;
  const Leaf* leaf = leaves_[page / kLeafPages];
  return leaf != nullptr ? leaf->pages[page % kLeafPages] : zeroes;
}

void PageTable::set(uint64_t page, PageRef content) {
  Leaf*& leaf = leaves_[page / kLeafPages];
  if (leaf == nullptr) {
    if (!content) return;
    leaf = new Leaf();
  } else if (leaf->references > 1) {
    auto* own = new Leaf(*leaf);
    own->references = 1;
    --leaf->references;
    leaf = own;
  }
  leaf->pages[page % kLeafPages] = std::move(content);
}

}  // namespace tidemark::sim
