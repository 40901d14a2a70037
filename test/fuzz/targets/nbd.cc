// One NBD client against the real connection: options and requests as the input says, cut anywhere,
// while requests and sends end in any order.
#include <fcntl.h>

#include <cerrno>
#include <map>
#include <string>
#include <vector>

#include "core/check.h"
#include "frontends/nbd_connection.h"
#include "input.h"
#include "memory_ring.h"

namespace tidemark::fuzz {
namespace {

constexpr uint64_t kVolumeBytes = 1u << 20;
constexpr size_t kArenaBytes = 256u << 10;
constexpr uint32_t kPayloadBytesMax = 64u << 10;
constexpr size_t kClientBytesMax = 1u << 20;

class MemoryHost : public FrontendHost {
 public:
  Ring& ring() override { return ring_; }
  void submit(Request* request) override { requests.push_back(request); }
  uint8_t* buffer_get(size_t bytes) override {
    check(bytes > 0 && bytes <= buffer_bytes_max(), "a buffer of that size is never given");
    if (held + bytes > kArenaBytes) return nullptr;
    held += bytes;
    return new uint8_t[bytes];
  }
  void buffer_put(uint8_t* buffer, size_t bytes) override {
    held -= bytes;
    delete[] buffer;
  }
  size_t buffer_bytes_max() const override { return kArenaBytes; }
  void post(std::function<void()>) override { check(false, "nothing is posted here"); }
  uint64_t volume_bytes() const override { return kVolumeBytes; }
  uint32_t block_bytes() const override { return 512; }
  bool can_discard() const override { return true; }
  bool fast_zeroes() const override { return fast; }
  uint64_t now_us() const override { return 1; }
  void frontend_failed(const std::string&) override { check(false, "a client ends the frontend"); }

  std::vector<Request*> requests;
  size_t held = 0;
  bool fast = false;

 private:
  Ring ring_;
};

struct Asked {
  uint16_t type = 0;
  uint32_t length = 0;
};

class Client {
 public:
  explicit Client(Input* input) : input_(*input) {
    const uint8_t kind = input_.byte();
    host_.fast = (kind & 1) != 0;
    export_.name = "volume";
    export_.bytes = kVolumeBytes;
    export_.flags = nbd::kHasFlags | nbd::kSendFlush | nbd::kSendFua | nbd::kSendWriteZeroes;
    if ((kind & 2) != 0) export_.flags |= nbd::kSendTrim;
    export_.block_max = kPayloadBytesMax;
    limits_ = {1 + kind / 4u % 8, 4096u << kind / 32u % 4};
    connection_ = std::make_unique<NbdConnection>(host_, nullptr, export_, limits_,
                                                  ::open("/dev/null", O_RDWR | O_CLOEXEC));
    if ((kind & 0x80) == 0) {
      append(nbd::kFixedNewstyle | nbd::kNoZeroes, 4);
      option(nbd::kOptGo, wanted("volume", 0));
    }
  }

  void run() {
    while (!input_.empty() && !connection_->finished()) {
      step();
      check_bounds();
    }
    end();
    if (!foreign_) check_output();
  }

 private:
  void append(uint64_t value, size_t bytes) {  // big endian
    while (bytes-- > 0) sent_ += static_cast<char>(value >> 8 * bytes);
  }
  void option(uint32_t number, const std::string& data) {
    append(nbd::kOptionMagic, 8);
    append(number, 4);
    append(data.size(), 4);
    sent_ += data;
  }
  static std::string wanted(const std::string& name, uint16_t infos) {
    std::string out;
    nbd::append(&out, static_cast<uint32_t>(name.size()));
    out += name;
    nbd::append(&out, infos);
    for (uint16_t info = 0; info < infos; ++info) nbd::append(&out, info);
    return out;
  }

  void step() {
    switch (input_.byte() % 12) {
      case 0:
        return command(input_.below(8), input_.byte());
      case 1:
        return command(nbd::kCmdWrite, 0);
      case 2:
        return say_option();
      case 3: {
        const std::span<const uint8_t> bytes = input_.take(input_.byte());
        sent_.append(bytes.begin(), bytes.end());
        foreign_ = foreign_ || !bytes.empty();
        return;
      }
      case 4:
        return deliver(1 + input_.byte());
      case 5:
        return deliver(SIZE_MAX);
      case 6:
        return finish_send(1 + input_.get<uint16_t>());
      case 7:
        return finish_send(SIZE_MAX);
      case 8:
        return finish_request(input_.byte(), input_.byte() % 8 == 0 ? -EIO : 0);
      case 9:
        limits_.buffer_bytes = 4096 + input_.get<uint16_t>();
        return;
      case 10: {
        const uint8_t how = input_.byte();
        const int32_t results[] = {-EINTR, -EAGAIN, 0, -ECONNRESET};
        if (how < 64) return complete(IORING_OP_RECVMSG, results[how % 4]);
        if (how < 128) return complete(IORING_OP_SENDMSG, how % 4 == 2 ? -EPIPE : results[how % 4]);
        if (how < 136) return connection_->drain();
        if (how < 140) return connection_->cut();
        return;
      }
      default:
        connection_->turn_end();
    }
  }

  void command(uint64_t type, uint8_t flags) {
    if (sent_.size() > kClientBytesMax) return;
    // Mostly what can be served.
    const uint8_t kind = input_.byte();
    uint64_t offset = input_.below(256) * 512;
    uint64_t length = input_.below(64) * 512;
    if (kind >= 0xe0) offset = input_.number();
    if (kind >= 0xf0 || kind % 16 == 15) length = input_.number();
    append(kind == 7 ? nbd::kSimpleReplyMagic : nbd::kRequestMagic, 4);
    append(flags & (kind % 2 == 0 ? 0xff : nbd::kCmdFlagFua), 2);
    append(type, 2);
    append(++cookie_, 8);
    append(offset, 8);
    append(length, 4);
    asked_[cookie_] = {static_cast<uint16_t>(type), static_cast<uint32_t>(length)};
    if (type == nbd::kCmdWrite) {
      sent_.append(std::min<size_t>(static_cast<uint32_t>(length), 2 * kPayloadBytesMax),
                   static_cast<char>(cookie_));
    }
  }

  void say_option() {
    const uint8_t kind = input_.byte();
    const auto number = static_cast<uint32_t>(kind % 16);
    if (kind < 128) return option(number, wanted(kind % 2 == 0 ? "volume" : "", kind / 16));
    const std::span<const uint8_t> data = input_.take(input_.byte());
    option(number, std::string(data.begin(), data.end()));
  }

  Submission take(uint8_t opcode) {
    std::deque<Submission>& queue = submissions();
    for (auto it = queue.begin(); it != queue.end(); ++it) {
      if (it->entry.opcode != opcode) continue;
      const Submission out = *it;
      queue.erase(it);
      return out;
    }
    return {};
  }
  void complete(uint8_t opcode, int32_t result) {
    const Submission one = take(opcode);
    if (one.completion != nullptr) one.completion->done(one.completion, result, 0);
  }

  void deliver(size_t most) {
    if (sent_.empty()) return;
    const Submission one = take(IORING_OP_RECVMSG);
    if (one.completion == nullptr) return;
    const auto* message = reinterpret_cast<const msghdr*>(one.entry.addr);
    size_t moved = 0;
    for (size_t part = 0; part < message->msg_iovlen; ++part) {
      const iovec& to = message->msg_iov[part];
      const size_t bytes = std::min({to.iov_len, sent_.size() - moved, most - moved});
      if (bytes > 0) std::memcpy(to.iov_base, sent_.data() + moved, bytes);
      moved += bytes;
    }
    sent_.erase(0, moved);
    // A receive into no room at all would look like the end of the stream.
    check(moved > 0, "the connection receives into nothing");
    one.completion->done(one.completion, static_cast<int32_t>(moved), 0);
  }

  void finish_send(size_t most) {
    const Submission one = take(IORING_OP_SENDMSG);
    if (one.completion == nullptr) return;
    const auto* message = reinterpret_cast<const msghdr*>(one.entry.addr);
    size_t moved = 0;
    for (size_t part = 0; part < message->msg_iovlen && moved < most; ++part) {
      const iovec& from = message->msg_iov[part];
      const size_t bytes = std::min(from.iov_len, most - moved);
      output_.append(static_cast<const char*>(from.iov_base), bytes);
      moved += bytes;
    }
    check(moved > 0, "the connection sends nothing");
    one.completion->done(one.completion, static_cast<int32_t>(moved), 0);
  }

  void finish_request(size_t which, int32_t result) {
    if (host_.requests.empty()) return;
    const auto at = host_.requests.begin() + static_cast<ptrdiff_t>(which % host_.requests.size());
    auto* command = static_cast<NbdConnection::Command*>(*at);
    host_.requests.erase(at);
    command->result = result;
    if (command->op == Op::kRead) {
      std::memset(command->buffer, static_cast<uint8_t>(command->cookie), command->length);
    }
    connection_->complete(command);
  }

  void check_bounds() {
    check(host_.requests.size() <= limits_.queue_depth, "more requests than the queue is deep");
    check(submissions().size() <= 2, "more operations than one receive and one send");
    for (const Request* request : host_.requests) {
      check(request->offset <= kVolumeBytes && request->length <= kVolumeBytes - request->offset,
            "a request past the end of the export");
      const bool carries = request->op == Op::kRead || request->op == Op::kWrite;
      check(carries == (request->buffer != nullptr), "a request without its buffer");
      check(!carries || request->length <= kPayloadBytesMax, "a payload beyond the bound");
      if (request->op != Op::kWrite || foreign_) continue;
      // Every byte arrived, and is this command's.
      const auto cookie = static_cast<const NbdConnection::Command*>(request)->cookie;
      for (uint64_t at = 0; at < request->length; at += 511) {
        check(request->buffer[at] == static_cast<uint8_t>(cookie), "another command's payload");
      }
    }
  }

  void end() {
    connection_->cut();
    for (int turn = 0; turn < 4; ++turn) {
      complete(IORING_OP_RECVMSG, -ECANCELED);
      complete(IORING_OP_SENDMSG, -ECANCELED);
      connection_->turn_end();
    }
    check(connection_->closed() && submissions().empty(), "a connection that was cut stays open");
    while (!host_.requests.empty()) finish_request(0, 0);
    check(connection_->finished(), "a connection is not finished when all requests came back");
    check(host_.held == 0, "a buffer was not given back");
    connection_.reset();
  }

  template <typename T>
  T load(size_t at) const {
    check(at + sizeof(T) <= output_.size(), "a reply is cut off");
    return nbd::load<T>(reinterpret_cast<const uint8_t*>(output_.data()) + at);
  }

  // Well-formed replies, each to something that was asked, once. The last may be cut off.
  void check_output() {
    size_t at = 18;
    while (at + 20 <= output_.size() && load<uint64_t>(at) == nbd::kOptionReplyMagic) {
      at += 20 + load<uint32_t>(at + 16);
    }
    // The answer to EXPORT_NAME has no magic.
    if (at + 10 <= output_.size() && load<uint64_t>(at) == kVolumeBytes) {
      at += 10;
      if (at + 124 <= output_.size() && output_.compare(at, 124, std::string(124, '\0')) == 0) {
        at += 124;
      }
    }
    // What is cut off in the middle of the negotiation's answers is no reply.
    const size_t replies_at = at;
    while (at + nbd::kReplyBytes <= output_.size()) {
      const bool is_option = load<uint32_t>(at) == nbd::kOptionReplyMagic >> 32;
      if (is_option && at == replies_at && at + 20 > output_.size()) return;
      const bool is_reply = load<uint32_t>(at) == nbd::kSimpleReplyMagic;
      check(is_reply, "something that is no reply was sent");
      const auto error = load<uint32_t>(at + 4);
      const auto asked = asked_.find(load<uint64_t>(at + 8));
      check(asked != asked_.end(), "a reply to nothing that was asked, or the second one");
      at += nbd::kReplyBytes;
      if (asked->second.type == nbd::kCmdRead && error == 0) {
        const size_t bytes = std::min<size_t>(asked->second.length, output_.size() - at);
        const std::string expected(bytes, static_cast<char>(asked->first));
        check(output_.compare(at, bytes, expected) == 0, "a read has another command's data");
        at += bytes;
      }
      asked_.erase(asked);
    }
  }

  Input& input_;
  MemoryHost host_;
  NbdExport export_;
  NbdConnection::Limits limits_{};
  std::unique_ptr<NbdConnection> connection_;
  std::string sent_;  // by the client, not yet received
  std::string output_;
  std::map<uint64_t, Asked> asked_;
  uint64_t cookie_ = 0;
  bool foreign_ = false;  // bytes were sent whose meaning is not known here
};

}  // namespace
}  // namespace tidemark::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidemark::fuzz;
  Input input({data, size});
  submissions().clear();
  Client(&input).run();
  return 0;
}
