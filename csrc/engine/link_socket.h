// The socket of the link once the handshake is over: its bytes go between the kernel and the two
// byte rings, on the volume's own thread and in its own ring, beside the disk's I/O.
//
// Invariants
// - At most one receive and one send are out. Their memory is the free part of the receive ring and
//   the unread part of the send ring, so that the rings are left alone until over().
// - Sends and receives that moved bytes are counted in `counts`, which other sockets count in too.
// - `ended` is called once, when nothing is out any more: with why, also after shut().
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/volume.h"
#include "engine/byte_ring.h"
#include "engine/ring.h"

namespace tidemark {

class LinkSocket {
 public:
  using Ended = std::function<void(const std::string& why)>;

  // Owns `fd`, a connected stream socket. All on the thread that uses `ring`.
  LinkSocket(Ring& ring, int fd, ByteRing& send, ByteRing& receive, ThreadStatus& counts,
             Ended ended);
  // The ring must be drained first where it is not over().
  ~LinkSocket();
  LinkSocket(const LinkSocket&) = delete;
  LinkSocket& operator=(const LinkSocket&) = delete;

  // Starts what can be started: to receive while there is room, to send what is unread. True: the
  // send ring got room that somebody waits for.
  bool turn();
  // Takes and gives no more bytes, and tells the peer.
  void shut(const std::string& why);
  bool busy() const { return receiving_ || sending_; }
  // All that was committed to the send ring has left.
  bool all_sent() const { return !sending_ && send_ring_.unread().empty(); }
  bool over() const { return ended_ == nullptr; }

 private:
  struct Operation : Completion {
    LinkSocket* socket = nullptr;
  };

  bool send_now();
  void received(int32_t result);
  void sent(int32_t result);
  void end_if_idle();

  Ring& ring_;
  int fd_;
  ByteRing& send_ring_;
  ByteRing& receive_ring_;
  ThreadStatus& counts_;
  Ended ended_;
  Operation receive_;
  Operation send_;
  bool receiving_ = false;
  bool sending_ = false;
  bool shut_ = false;
  int failure_ = 0;  // errno of a send
  std::string why_;
};

}  // namespace tidemark
