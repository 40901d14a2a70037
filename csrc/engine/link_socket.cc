#include "engine/link_socket.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <utility>

namespace tidemark {
namespace {

// Bytes of one receive: the volume handles them in one turn, and the disk's completions wait.
constexpr size_t kReceiveMax = 512u << 10;
// Bytes of one send: small enough that the ring's room comes back while the rest is being sent.
constexpr size_t kSendMax = 1u << 20;

bool try_again(int32_t result) { return result == -EINTR || result == -EAGAIN; }

}  // namespace

LinkSocket::LinkSocket(Ring& ring, int fd, ByteRing& send, ByteRing& receive, ThreadStatus& counts,
                       Ended ended)
    : ring_(ring),
      fd_(fd),
      send_ring_(send),
      receive_ring_(receive),
      counts_(counts),
      ended_(std::move(ended)) {
  receive_.socket = this;
  receive_.done = [](Completion* self, int32_t result, uint32_t) {
    static_cast<Operation*>(self)->socket->received(result);
  };
  send_.socket = this;
  send_.done = [](Completion* self, int32_t result, uint32_t) {
    static_cast<Operation*>(self)->socket->sent(result);
  };
}

LinkSocket::~LinkSocket() {
  if (fd_ >= 0) ::close(fd_);
}

bool LinkSocket::turn() {
  if (shut_) return false;
  if (!receiving_) receive_ring_.rewind();
  const size_t free = std::min(receive_ring_.space(), kReceiveMax);
  if (!receiving_ && free > 0) {
    receiving_ = true;
    io_uring_sqe* sqe = ring_.sqe(&receive_);
    sqe->opcode = IORING_OP_RECV;
    sqe->fd = fd_;
    sqe->addr = reinterpret_cast<uint64_t>(receive_ring_.reserve(free));
    sqe->len = static_cast<uint32_t>(free);
  }
  if (sending_) return false;
  const bool room = send_now();
  const std::span<const uint8_t> unread = send_ring_.unread();
  if (!unread.empty()) {
    sending_ = true;
    io_uring_sqe* sqe = ring_.sqe(&send_);
    sqe->opcode = IORING_OP_SEND;
    sqe->fd = fd_;
    sqe->addr = reinterpret_cast<uint64_t>(unread.data());
    sqe->len = static_cast<uint32_t>(std::min(unread.size(), kSendMax));
    sqe->msg_flags = MSG_NOSIGNAL;
  } else {
    send_ring_.rewind();
  }
  return room;
}

// What the socket's buffer takes at once: the peer works on it while this thread submits its disk's
// I/O. The rest is the ring's, which also finds the end of a socket that failed here; but why it
// failed a socket says once.
bool LinkSocket::send_now() {
  const std::span<const uint8_t> unread = send_ring_.unread();
  if (unread.empty()) return false;
  const ssize_t sent =
      ::send(fd_, unread.data(), std::min(unread.size(), kSendMax), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && !try_again(-errno)) failure_ = errno;
  if (sent <= 0) return false;
  ++counts_.link_sends;
  return send_ring_.consume(static_cast<size_t>(sent));
}

void LinkSocket::received(int32_t result) {
  receiving_ = false;
  if (result > 0) {
    ++counts_.link_receives;
    receive_ring_.commit(static_cast<size_t>(result));
    receive_ring_.publish();
  } else if (failure_ != 0) {
    shut(std::string("sending: ") + std::strerror(failure_));
  } else if (result == 0) {
    shut("the peer closed the connection");
  } else if (!try_again(result)) {
    shut(std::string("receiving: ") + std::strerror(-result));
  }
  end_if_idle();
}

void LinkSocket::sent(int32_t result) {
  sending_ = false;
  if (result > 0) {
    ++counts_.link_sends;
    send_ring_.consume(static_cast<size_t>(result));
  } else if (!try_again(result)) {
    shut(std::string("sending: ") + std::strerror(failure_ != 0 ? failure_ : -result));
  }
  end_if_idle();
}

void LinkSocket::shut(const std::string& why) {
  if (shut_) return;
  shut_ = true;
  why_ = why;
  // What is out ends with this.
  ::shutdown(fd_, SHUT_RDWR);
  end_if_idle();
}

void LinkSocket::end_if_idle() {
  if (!shut_ || busy() || over()) return;
  ::close(std::exchange(fd_, -1));
  const Ended ended = std::exchange(ended_, nullptr);
  ended(why_);
}

}  // namespace tidemark
