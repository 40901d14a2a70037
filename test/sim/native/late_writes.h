// Writes of a daemon that was killed, which the kernel still carries to the disk. They hold its
// locks, so that a successor that waits for the locks finds all of them landed (R12).
#pragma once

#include <cstdint>
#include <vector>

#include "disk.h"
#include "random.h"

namespace tidemark::sim {

class LateWrites {
 public:
  bool empty() const { return writes_.empty(); }
  // `data` null: zeroes. It is copied.
  void keep(Disk& disk, uint64_t place, const uint8_t* data, uint64_t length, bool fua);
  // Any one of them; not when empty.
  void land_one(Random& random);
  void land_all(Random& random);
  // The power goes: each has happened, in part, or not.
  void cut(Random& random);
  void forget() { writes_.clear(); }

 private:
  struct Write {
    Disk* disk;
    uint64_t place;
    uint64_t length;
    std::vector<uint8_t> bytes;  // empty: zeroes
    bool fua;
    const uint8_t* data() const { return bytes.empty() ? nullptr : bytes.data(); }
  };
  Write take(Random& random);

  std::vector<Write> writes_;
};

}  // namespace tidemark::sim
