// Reading stops while no command slot is free, the arena is empty, or the negotiation's answers are
// not taken: the socket's buffer fills, and the client waits. All come back by completions and sent
// replies, which never wait for reading, so that this cannot lock up.
#include "frontends/nbd_connection.h"

#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>

namespace tidemark {
namespace {

constexpr size_t kStagingBytes = 64u << 10;
constexpr size_t kSendPartsMax = 256;  // well below the kernel's 1,024

}  // namespace

NbdConnection::NbdConnection(FrontendHost& host, Frontend* owner, const NbdExport& served,
                             const Limits& limits, int fd)
    : host_(host),
      owner_(owner),
      export_(served),
      limits_(limits),
      fd_(fd),
      started_us_(host.now_us()),
      negotiation_(served),
      staging_(new uint8_t[kStagingBytes]) {
  receive_.connection = send_.connection = this;
  receive_.done = [](Completion* self, int32_t result, uint32_t) {
    static_cast<Operation*>(self)->connection->received(result);
  };
  send_.done = [](Completion* self, int32_t result, uint32_t) {
    static_cast<Operation*>(self)->connection->sent(result);
  };
  receive();
}

NbdConnection::~NbdConnection() {
  if (fd_ >= 0) ::close(fd_);
  for (const auto& command : commands_) put_buffer(command.get());
}

// --- input ---

void NbdConnection::receive() {
  if (receive_.busy || stalled_ || (state_ != State::kNegotiating && state_ != State::kServing)) {
    return;
  }
  if (begin_ > 0) {
    std::memmove(staging_.get(), staging_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  size_t parts = 0;
  // A payload goes to where it is needed; what follows it, to the staging area in the same call.
  if (input_ == Input::kPayload) {
    receive_parts_[parts++] = {current_->buffer + current_->length - current_->payload_left,
                               current_->payload_left};
  }
  receive_parts_[parts++] = {staging_.get() + end_, kStagingBytes - end_};
  receive_.message = {};
  receive_.message.msg_iov = receive_parts_;
  receive_.message.msg_iovlen = parts;
  start(&receive_, IORING_OP_RECVMSG, 0);
}

void NbdConnection::start(Operation* operation, uint8_t opcode, uint32_t flags) {
  operation->busy = true;
  io_uring_sqe* sqe = host_.ring().sqe(operation);
  sqe->opcode = opcode;
  sqe->fd = fd_;
  sqe->addr = reinterpret_cast<uint64_t>(&operation->message);
  sqe->len = 1;
  sqe->msg_flags = flags;
}

void NbdConnection::received(int32_t result) {
  receive_.busy = false;
  if (state_ >= State::kDraining) return settle();
  if (result == -EINTR || result == -EAGAIN) return receive();
  if (result < 0) return cut();
  // The end of the stream: nobody says that the client does not still read.
  if (result == 0) return drain();
  auto bytes = static_cast<uint64_t>(result);
  if (input_ == Input::kPayload) {
    const uint64_t payload = std::min(bytes, current_->payload_left);
    current_->payload_left -= payload;
    bytes -= payload;
  }
  end_ += bytes;
  process();
}

void NbdConnection::process() {
  if (state_ == State::kNegotiating) {
    begin_ += negotiation_.feed({staging_.get() + begin_, end_ - begin_});
    stalled_ = negotiation_.full();
    if (negotiation_.state() == NbdNegotiation::State::kTransmission) state_ = State::kServing;
    if (negotiation_.state() == NbdNegotiation::State::kEnd) state_ = State::kDraining;
  }
  while (state_ == State::kServing && process_step()) {
  }
  receive();
}

// One step forward; false: more bytes, a place or a buffer is needed first.
bool NbdConnection::process_step() {
  const size_t available = end_ - begin_;
  switch (input_) {
    case Input::kHeader:
      if (available < nbd::kRequestBytes) return false;
      if (idle_.empty() && commands_.size() >= limits_.queue_depth) {
        stalled_ = true;
        return false;
      }
      begin_ += nbd::kRequestBytes;
      return begin_command(staging_.get() + begin_ - nbd::kRequestBytes);
    case Input::kBuffer: {
      stalled_ = !get_buffer(current_);
      if (stalled_) return false;
      if (current_->op == Op::kWrite) {
        input_ = Input::kPayload;
        return true;
      }
      Command* command = current_;
      current_ = nullptr;
      input_ = Input::kHeader;
      submit(command);
      return true;
    }
    case Input::kPayload: {
      const size_t bytes = std::min<uint64_t>(available, current_->payload_left);
      if (bytes > 0) {
        std::memcpy(current_->buffer + current_->length - current_->payload_left,
                    staging_.get() + begin_, bytes);
        begin_ += bytes;
        current_->payload_left -= bytes;
      }
      if (current_->payload_left > 0) return false;
      Command* command = current_;
      current_ = nullptr;
      input_ = Input::kHeader;
      submit(command);
      return true;
    }
    case Input::kSkip: {
      const size_t bytes = std::min<uint64_t>(available, skip_bytes_);
      begin_ += bytes;
      skip_bytes_ -= bytes;
      if (skip_bytes_ > 0) return false;
      Command* command = current_;
      current_ = nullptr;
      input_ = Input::kHeader;
      answer(command, skip_error_);
      return true;
    }
  }
  return false;
}

bool NbdConnection::begin_command(const uint8_t* header) {
  if (nbd::load<uint32_t>(header) != nbd::kRequestMagic) {
    cut();  // the stream is out of step; nothing after this can be trusted
    return false;
  }
  const auto flags = nbd::load<uint16_t>(header + 4);
  const auto type = nbd::load<uint16_t>(header + 6);
  if (type == nbd::kCmdDisconnect) {
    drain();
    return false;
  }
  if (idle_.empty()) idle_.push_back(commands_.emplace_back(std::make_unique<Command>()).get());
  Command* command = idle_.back();
  idle_.pop_back();
  static_cast<Request&>(*command) = Request();
  command->connection = this;
  command->owner = owner_;
  command->cookie = nbd::load<uint64_t>(header + 8);
  command->offset = nbd::load<uint64_t>(header + 16);
  command->length = nbd::load<uint32_t>(header + 24);
  command->payload_left = type == nbd::kCmdWrite ? command->length : 0;
  command->buffer_bytes = 0;
  if ((flags & nbd::kCmdFlagFua) != 0 && type != nbd::kCmdRead) command->flags |= kRequestFua;
  if ((flags & nbd::kCmdFlagNoHole) != 0) command->flags |= kRequestNoUnmap;

  if (const uint32_t error = check(*command, type, flags); error != 0) {
    if (command->payload_left == 0) {
      answer(command, error);
      return true;
    }
    current_ = command;
    input_ = Input::kSkip;
    skip_bytes_ = command->payload_left;
    skip_error_ = error;
    return true;
  }
  switch (type) {
    case nbd::kCmdRead:
      command->op = Op::kRead;
      break;
    case nbd::kCmdWrite:
      command->op = Op::kWrite;
      break;
    case nbd::kCmdTrim:
      command->op = Op::kDiscard;
      break;
    case nbd::kCmdWriteZeroes:
      command->op = Op::kWriteZeroes;
      break;
    default:
      command->op = Op::kFlush;
      command->offset = command->length = 0;
      command->flags = 0;
      submit(command);
      return true;
  }
  if (command->length == 0) {
    answer(command, 0);
  } else if (command->op == Op::kRead || command->op == Op::kWrite) {
    current_ = command;
    input_ = Input::kBuffer;
  } else {
    submit(command);
  }
  return true;
}

// The NBD error that refuses a command, or 0.
uint32_t NbdConnection::check(const Command& command, uint16_t type, uint16_t flags) const {
  uint16_t known = nbd::kCmdFlagFua;
  bool writes = false;
  switch (type) {
    case nbd::kCmdFlush:
      return (flags & ~known) != 0 ? nbd::kErrorInvalid : 0;
    case nbd::kCmdRead:
      break;
    case nbd::kCmdWrite:
      writes = true;
      break;
    case nbd::kCmdTrim:
      if ((export_.flags & nbd::kSendTrim) == 0) return nbd::kErrorInvalid;
      break;
    case nbd::kCmdWriteZeroes:
      known |= nbd::kCmdFlagNoHole | nbd::kCmdFlagFastZero;
      writes = true;
      break;
    default:
      return nbd::kErrorInvalid;
  }
  if ((flags & ~known) != 0) return nbd::kErrorInvalid;
  const bool carries = type == nbd::kCmdRead || type == nbd::kCmdWrite;
  if (carries && command.length > export_.block_max) return nbd::kErrorInvalid;
  if (command.offset > export_.bytes || command.length > export_.bytes - command.offset) {
    return writes ? nbd::kErrorNoSpace : nbd::kErrorInvalid;
  }
  // Allocated zeroes may have to be written; the client asked to be told instead.
  if ((flags & nbd::kCmdFlagFastZero) != 0 &&
      (!host_.fast_zeroes() || (flags & nbd::kCmdFlagNoHole) != 0)) {
    return nbd::kErrorNotSupported;
  }
  return 0;
}

void NbdConnection::submit(Command* command) {
  ++out_;
  host_.submit(command);
}

// --- output ---

void NbdConnection::complete(Command* command) {
  assert(out_ > 0);
  --out_;
  if (state_ >= State::kClosing) return release(command);
  answer(command, nbd::error_of(command->result));
}

void NbdConnection::answer(Command* command, uint32_t error) {
  const bool payload = command->op == Op::kRead && error == 0 && command->buffer != nullptr;
  if (!payload) put_buffer(command);
  nbd::store(command->reply, nbd::kSimpleReplyMagic);
  nbd::store(command->reply + 4, error);
  nbd::store(command->reply + 8, command->cookie);
  replies_.push_back(command);
}

bool NbdConnection::get_buffer(Command* command) {
  if (held_bytes_ > 0 && held_bytes_ + command->length > limits_.buffer_bytes) return false;
  command->buffer = host_.buffer_get(command->length);
  if (command->buffer == nullptr) return false;
  command->buffer_bytes = command->length;
  held_bytes_ += command->buffer_bytes;
  return true;
}

void NbdConnection::put_buffer(Command* command) {
  if (command->buffer == nullptr) return;
  host_.buffer_put(command->buffer, command->buffer_bytes);
  held_bytes_ -= command->buffer_bytes;
  command->buffer = nullptr;
}

void NbdConnection::release(Command* command) {
  put_buffer(command);
  idle_.push_back(command);
}

// All that is queued in one system call, at once: the client works on it while this thread submits
// the disk's I/O. What its socket does not take, and an error, is the ring's. True: something has
// left.
bool NbdConnection::send() {
  if (!gather()) return false;
  const ssize_t sent_now = ::sendmsg(fd_, &send_.message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent_now > 0) {
    account(static_cast<size_t>(sent_now));
    if (!gather()) return true;
  }
  start(&send_, IORING_OP_SENDMSG, MSG_NOSIGNAL);
  return sent_now > 0;
}

// Makes the message of what is queued; false: of nothing.
bool NbdConnection::gather() {
  if (send_.busy || state_ >= State::kClosing) return false;
  if (greeting_sent_ == greeting_.size()) {
    greeting_ = std::move(negotiation_.output());
    negotiation_.output().clear();
    greeting_sent_ = 0;
  }
  send_parts_.clear();
  if (greeting_sent_ < greeting_.size()) {
    send_parts_.push_back({greeting_.data() + greeting_sent_, greeting_.size() - greeting_sent_});
  }
  size_t skip = replies_sent_;
  for (Command* command : replies_) {
    if (!negotiation_.output().empty()) break;  // which comes first
    if (send_parts_.size() + 2 > kSendPartsMax) break;
    const iovec parts[] = {{command->reply, sizeof command->reply},
                           {command->buffer, command->buffer != nullptr ? command->length : 0}};
    for (const iovec& part : parts) {
      const size_t sent = std::min(skip, part.iov_len);
      skip -= sent;
      if (sent == part.iov_len) continue;
      send_parts_.push_back({static_cast<uint8_t*>(part.iov_base) + sent, part.iov_len - sent});
    }
  }
  send_.message = {};
  send_.message.msg_iov = send_parts_.data();
  send_.message.msg_iovlen = send_parts_.size();
  return !send_parts_.empty();
}

void NbdConnection::sent(int32_t result) {
  send_.busy = false;
  if (state_ >= State::kClosing) return settle();
  // turn_end() goes on with the rest, and with reading.
  if (result == -EINTR || result == -EAGAIN) return;
  if (result < 0) return cut();
  account(static_cast<size_t>(result));
}

void NbdConnection::account(size_t bytes) {
  const size_t greeting = std::min(bytes, greeting_.size() - greeting_sent_);
  greeting_sent_ += greeting;
  replies_sent_ += bytes - greeting;
  while (!replies_.empty()) {
    Command* command = replies_.front();
    const size_t whole = sizeof command->reply + (command->buffer != nullptr ? command->length : 0);
    if (replies_sent_ < whole) break;
    replies_sent_ -= whole;
    replies_.pop_front();
    release(command);
  }
}

void NbdConnection::turn_end() {
  if (state_ == State::kClosed) return;
  // What a reply gives back may be what reading waits for.
  do {
    if (stalled_ && (state_ == State::kServing || state_ == State::kNegotiating)) {
      stalled_ = false;
      process();
    }
  } while (send() && stalled_);
  if (state_ >= State::kDraining) settle();
}

// --- the end ---

void NbdConnection::drain() {
  if (state_ < State::kDraining) state_ = State::kDraining;
}

void NbdConnection::cut() {
  if (state_ >= State::kClosing) return;
  state_ = State::kClosing;
  // Both operations of the ring end by this.
  shutdown(fd_, SHUT_RDWR);
}

// Goes on towards the end as far as possible. Not from within a loop over the replies.
void NbdConnection::settle() {
  if (state_ == State::kDraining) {
    const bool sent = !send_.busy && replies_.empty() && greeting_sent_ == greeting_.size() &&
                      negotiation_.output().empty();
    if (out_ == 0 && sent) cut();
  }
  if (state_ != State::kClosing || receive_.busy || send_.busy) return;
  state_ = State::kClosed;
  ::close(fd_);
  fd_ = -1;
  for (Command* command : replies_) release(command);
  replies_.clear();
  if (current_ != nullptr) release(current_);
  current_ = nullptr;
}

}  // namespace tidemark
