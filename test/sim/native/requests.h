// The frontend's side of a simulated process: requests that the simulation submits, each of which
// must come back exactly once.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "buffers.h"
#include "core/host.h"

namespace tidemark::sim {

// What the simulation asks for; kept, so that it can be asked for again after a crash.
struct Ask {
  Op op = Op::kRead;
  uint64_t offset = 0;
  uint64_t length = 0;
  bool fua = false;
  bool no_unmap = false;
  uint64_t stamp = 0;
};

struct Answered {
  uint64_t id = 0;
  int32_t result = 0;
  bool read = false;  // and it went well: stamps has one for each sector
  std::vector<int64_t> stamps;
  uint32_t link_slot = kNoSlot;  // of the peer that was linked then
};

class Requests {
 public:
  explicit Requests(Buffers& buffers) : buffers_(buffers) {}
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;

  // The request to hand to the volume.
  Request* make(const Ask& ask, uint64_t id);
  // What is wrong with this completion, or nothing.
  std::string complete(Request* request, uint32_t link_slot);
  // What is wrong with one of the requests that were completed before, another one at each call, or
  // nothing.
  std::string check_completed();

  uint64_t out() const { return out_.size(); }
  std::vector<Answered> take_answered() { return std::exchange(answered_, {}); }
  // Those that are out, oldest first.
  std::vector<Ask> unfinished() const;

 private:
  struct Entry {
    Request request;
    Ask ask;
    uint64_t id = 0;
    bool out = false;
    uint64_t fingerprint = 0;  // of a write's buffer
    size_t buffer_bytes = 0;
  };
  std::string judge(Entry& entry);

  Buffers& buffers_;
  std::map<uint64_t, Entry*> out_;           // by id
  std::deque<std::unique_ptr<Entry>> idle_;  // completed; used again after a while
  std::vector<std::unique_ptr<Entry>> all_;  // those that are out, by no order
  std::vector<Answered> answered_;
  size_t next_checked_ = 0;
};

}  // namespace tidemark::sim
