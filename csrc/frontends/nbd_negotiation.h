// The server's half of the NBD handshake (fixed newstyle) as a state machine: bytes in, bytes out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace tidemark {

struct NbdExport {
  std::string name;  // "" names it as well
  uint64_t bytes = 0;
  uint16_t flags = 0;  // transmission flags
  uint32_t block_min = 1;
  uint32_t block_preferred = 4096;
  uint32_t block_max = 32u << 20;
};

class NbdNegotiation {
 public:
  enum class State : uint8_t {
    kClientFlags,
    kOption,        // a header is expected
    kOptionData,    // its data
    kSkip,          // data that is too long to be looked at
    kTransmission,  // the next byte is a request's
    kEnd,           // send what is to be sent, then close
  };

  // Queues the greeting. `served` has to live as long.
  explicit NbdNegotiation(const NbdExport& served);

  // Answers that wait to be sent, at most, but for those to one option more.
  static constexpr size_t kOutputBytesMax = 64u << 10;

  // Takes bytes and returns how many; none once the state is kTransmission or kEnd, none while more
  // are needed, and none while full().
  size_t feed(std::span<const uint8_t> bytes);
  // A client that asks and does not read: its answers have to be taken before it is heard again.
  bool full() const { return output_.size() >= kOutputBytesMax; }
  State state() const { return state_; }
  // What is to be sent; the caller takes it away.
  std::string& output() { return output_; }
  // Why it ended by itself; empty after an orderly abort.
  const std::string& failure() const { return failure_; }

 private:
  size_t step(std::span<const uint8_t> bytes);
  void option(std::span<const uint8_t> data);
  void export_name(std::span<const uint8_t> data);
  void info_or_go(std::span<const uint8_t> data);
  void list(std::span<const uint8_t> data);
  void reply(uint32_t type, const std::string& data = "");
  void end(const std::string& why);
  bool serves(const std::string& name) const { return name.empty() || name == export_.name; }

  const NbdExport& export_;
  State state_ = State::kClientFlags;
  bool fixed_ = false;
  bool zeroes_ = true;
  uint32_t option_ = 0;
  uint32_t length_ = 0;  // of the option's data; what is left of it in kSkip
  std::string output_;
  std::string failure_;
};

}  // namespace tidemark
