// Two machines that are copies of each other, and the sentence that must always hold between them:
// what may differ is marked, durably, on a node that will be asked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bits.h"
#include "machine.h"
#include "meta_view.h"

namespace tidemark {
struct VolumeImpl;
}

namespace tidemark::sim {

class Pair {
 public:
  // The pair of these two; it lives until one of them goes. Throws std::runtime_error when they
  // are no copies of each other.
  static Pair& of(Machine& a, Machine& b);
  static void forget(Machine& machine);

  Pair(Machine& a, Machine& b);

  // All answers are chunk numbers, of a's chunk size.
  std::vector<uint32_t> differing();
  // Differing chunks that are not covered, in either of two worlds. Both machines die now: then
  // durable bits and durable logs count. Nothing dies: then the bits in RAM count, what the
  // transfer log holds (it becomes bits when the link goes, R7), and what is being written at this
  // moment.
  std::vector<uint32_t> uncovered();
  // The machines that are cut lose power; a daemon that runs on the other goes on or is killed, as
  // the seed has it. What died attaches again, on clones of the disks. Then bits count.
  // Throws std::runtime_error when a clone refuses to attach.
  std::vector<uint32_t> uncovered_after_crash(uint64_t seed, bool cut_a, bool cut_b);
  // Everything known about a chunk, for people.
  std::string explain(uint64_t chunk);

 private:
  struct Side final : Disk::Watcher {
    Side(Pair& pair, Machine& machine);
    ~Side();
    void cached_changed(uint64_t page) override { pair.touch(page); }
    void durable_changed(uint64_t) override {}

    Pair& pair;
    Machine& machine;
    MetaView cached;
    MetaView durable;
  };

  void touch(uint64_t page);
  void refresh();
  Bits ram_cover(Side& side, const Uuid& peer) const;
  void remove_in_flight(const Side& side, const Uuid& peer, Bits* bits) const;
  std::vector<uint32_t> chunks_of(const Bits& pages) const;

  Side a_;
  Side b_;
  uint64_t pages_;
  Bits differing_;
  std::vector<uint64_t> touched_;
  Bits listed_;
};

// What the slot of a running volume for this peer says: pages, all when there is no slot.
Bits slot_cover(const Attachment& attachment, const Uuid& peer, uint64_t pages);

}  // namespace tidemark::sim
