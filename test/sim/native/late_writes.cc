#include "late_writes.h"

#include <cstddef>
#include <utility>

namespace tidemark::sim {

void LateWrites::keep(Disk& disk, uint64_t place, const uint8_t* data, uint64_t length, bool fua) {
  Write write{&disk, place, length, {}, fua};
  if (data != nullptr) write.bytes.assign(data, data + length);
  writes_.push_back(std::move(write));
}

LateWrites::Write LateWrites::take(Random& random) {
  const auto at = static_cast<ptrdiff_t>(random.below(writes_.size()));
  Write write = std::move(writes_[static_cast<size_t>(at)]);
  writes_.erase(writes_.begin() + at);
  return write;
}

void LateWrites::land_one(Random& random) {
  const Write write = take(random);
  write.disk->write(write.place, write.data(), write.length, write.fua);
}

void LateWrites::land_all(Random& random) {
  while (!empty()) land_one(random);
}

void LateWrites::cut(Random& random) {
  while (!empty()) {
    const Write write = take(random);
    switch (random.below(3)) {
      case 0:
        break;
      case 1:
        write.disk->write_torn(write.place, write.data(), write.length, write.fua, random);
        break;
      default:
        write.disk->write(write.place, write.data(), write.length, write.fua);
    }
  }
}

}  // namespace tidemark::sim
