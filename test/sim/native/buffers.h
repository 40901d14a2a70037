// I/O buffers of a simulated process: counted, bounded in no way, and checked. What is given back
// is spoilt, so that whoever uses it afterwards is seen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>

namespace tidemark::sim {

class Buffers {
 public:
  Buffers() = default;
  ~Buffers();  // what was not given back goes, as with a process
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;

  uint8_t* get(size_t bytes);
  // What is wrong with giving it back, or nothing.
  std::string put(uint8_t* buffer, size_t bytes);
  uint64_t count() const { return out_.size(); }
  uint64_t bytes() const { return bytes_; }

 private:
  std::unordered_map<uint8_t*, size_t> out_;
  uint64_t bytes_ = 0;
};

}  // namespace tidemark::sim
