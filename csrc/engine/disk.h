// The core's I/O on the backing disk and the metadata store, through the ring.
//
// Every Io that submit() took is handed to `done` exactly once, complete or failed: short transfers
// are continued, interrupted ones repeated, what the disk cannot do natively is done by writing
// zeroes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/host.h"
#include "engine/ring.h"

namespace tidemark {

class Disk {
 public:
  struct Area {
    int fd = -1;
    uint64_t offset = 0;  // byte on the device where the area starts
    uint64_t bytes = 0;
    uint32_t block_bytes = 512;
    uint32_t memory_align = 1;  // of buffers, a power of two
    bool can_punch = false;
    bool in_memory = false;  // what is small is done in place
  };

  // `done` is called from within Ring::turn() and deliver(), never from submit().
  Disk(Ring& ring, const Area& data, const Area& meta, std::function<void(Io*)> done);
  ~Disk();
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  void submit(Io* io);
  // Does what was submitted and is done in place; deliver() hands it back. This one after what
  // leaves by sockets, so that their other ends work meanwhile.
  void run_in_place();
  void deliver();
  bool undelivered() const { return delivered_ < done_in_place_.size(); }
  bool waits_in_place() const { return !in_place_.empty(); }
  // Puts the rest of what was submitted into the ring, behind what others have put there meanwhile.
  void enter_ring();
  // From now on nothing is started or handed back; what is in the kernel's hands comes to its end.
  void abandon() { abandoned_ = true; }
  uint64_t in_flight() const { return in_flight_; }

 private:
  enum class Step : uint8_t { kTransfer, kBounced, kPunch, kZeroRange, kWriteZeroes, kSync, kFail };
  struct Operation;
  // What goes into the ring's entry, or is done in place.
  struct Entry {
    uint8_t opcode = 0;
    bool quick = false;  // a copy in memory, on a filesystem that is there
    uint32_t length = 0;
    uint64_t offset = 0;
    uint64_t address = 0;
    uint32_t flags = 0;
  };

  void start(Operation* operation);
  void prepare(Operation* operation);
  int32_t perform(const Operation& operation) const;
  void advance(Operation* operation, int32_t result);
  void finish(Operation* operation, int32_t result);
  Step zeroing_step(const Io& io) const;

  Ring& ring_;
  Area areas_[2];
  bool can_punch_[2];
  bool can_zero_range_[2] = {true, true};
  std::function<void(Io*)> done_;
  std::vector<std::unique_ptr<Operation>> operations_;  // all that were ever made
  std::vector<Operation*> idle_;
  std::vector<Operation*> for_ring_;       // submitted, to be done by the ring
  std::vector<Operation*> in_place_;       // to be done in place ...
  std::vector<Operation*> done_in_place_;  // ... and done
  size_t delivered_ = 0;                   // of those
  uint8_t* zeroes_ = nullptr;              // kZeroBytes, never written
  uint64_t in_flight_ = 0;
  bool abandoned_ = false;
};

}  // namespace tidemark
