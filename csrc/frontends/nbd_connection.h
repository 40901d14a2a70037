// One client of the NBD server: its bytes in, its requests, its replies. On the volume's thread.
//
//   negotiating --> serving --> draining --> closing --> closed
//
// draining: nothing is read any more (the client said goodbye, or the server stops); what is under
// way is finished and answered. closing: the socket is shut down, and what the ring holds comes
// back. closed: the ring holds nothing, the socket is gone; requests may still be with the volume,
// and the connection may be deleted when the last has come back.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "engine/frontend.h"
#include "engine/ring.h"
#include "frontends/nbd_negotiation.h"
#include "frontends/nbd_protocol.h"

namespace tidemark {

class NbdConnection {
 public:
  // A command of the client from its header to its reply.
  struct Command : Request {
    NbdConnection* connection = nullptr;
    uint64_t cookie = 0;
    uint64_t payload_left = 0;  // bytes of a write that did not arrive yet
    uint64_t buffer_bytes = 0;  // of Request::buffer
    uint8_t reply[nbd::kReplyBytes];
  };

  struct Limits {
    uint32_t queue_depth;   // commands under way
    uint64_t buffer_bytes;  // payload under way; a single command may have more
  };

  // Takes over the socket and begins. `served` and `limits` live longer; limits may change.
  NbdConnection(FrontendHost& host, Frontend* owner, const NbdExport& served, const Limits& limits,
                int fd);
  // Only when it is finished(), or when the engine ends.
  ~NbdConnection();
  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;

  // The volume answered.
  void complete(Command* command);
  // In each turn, once or twice: goes on where a buffer or a place was missing, sends what is
  // queued.
  void turn_end();
  void drain();
  void cut();

  bool negotiating() const { return state_ == State::kNegotiating; }
  bool closed() const { return state_ == State::kClosed; }
  bool finished() const { return closed() && out_ == 0; }
  uint64_t started_us() const { return started_us_; }

 private:
  enum class State : uint8_t { kNegotiating, kServing, kDraining, kClosing, kClosed };
  enum class Input : uint8_t { kHeader, kBuffer, kPayload, kSkip };  // what is awaited
  struct Operation : Completion {
    NbdConnection* connection = nullptr;
    msghdr message = {};
    bool busy = false;
  };

  void start(Operation* operation, uint8_t opcode, uint32_t flags);
  void receive();
  void received(int32_t result);
  void process();
  bool process_step();
  bool begin_command(const uint8_t* header);
  uint32_t check(const Command& command, uint16_t type, uint16_t flags) const;
  void submit(Command* command);
  void answer(Command* command, uint32_t error);
  bool send();
  bool gather();
  void sent(int32_t result);
  void account(size_t bytes);
  bool get_buffer(Command* command);
  void put_buffer(Command* command);
  void release(Command* command);
  void settle();

  FrontendHost& host_;
  Frontend* const owner_;
  const NbdExport& export_;
  const Limits& limits_;
  int fd_;
  State state_ = State::kNegotiating;
  uint64_t started_us_;
  NbdNegotiation negotiation_;

  // Input. Unread bytes are staging_[begin_, end_).
  std::unique_ptr<uint8_t[]> staging_;
  size_t begin_ = 0;
  size_t end_ = 0;
  Input input_ = Input::kHeader;
  Command* current_ = nullptr;  // whose buffer or payload is awaited
  uint64_t skip_bytes_ = 0;     // payload of a refused write, still to be dropped
  uint32_t skip_error_ = 0;     // ... and then to be answered with this
  bool stalled_ = false;        // no place, buffer or room for answers: nothing is read until then
  Operation receive_;
  iovec receive_parts_[2];

  // Output.
  std::string greeting_;  // negotiation bytes being sent
  size_t greeting_sent_ = 0;
  std::deque<Command*> replies_;  // in the order in which they are sent
  size_t replies_sent_ = 0;       // bytes of the first that are sent
  Operation send_;
  std::vector<iovec> send_parts_;

  std::vector<std::unique_ptr<Command>> commands_;
  std::vector<Command*> idle_;
  uint32_t out_ = 0;         // with the volume
  uint64_t held_bytes_ = 0;  // of buffers
};

}  // namespace tidemark
