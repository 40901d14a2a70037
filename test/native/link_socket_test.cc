#include "engine/link_socket.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "random.h"

namespace tidemark {
namespace {

constexpr size_t kRingBytes = 64u << 10;

// A socket whose other end the test holds.
struct Linked {
  Ring ring;
  ByteRing send;
  ByteRing receive;
  ThreadStatus counts;
  int peer = -1;
  std::vector<std::string> ends;
  std::unique_ptr<LinkSocket> socket;

  Linked() {
    int fds[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    peer = fds[1];
    REQUIRE(ring.open({}) == 0);
    REQUIRE(send.open(kRingBytes) == 0);
    REQUIRE(receive.open(kRingBytes) == 0);
    socket = std::make_unique<LinkSocket>(ring, fds[0], send, receive, counts,
                                          [this](const std::string& why) { ends.push_back(why); });
  }
  ~Linked() {
    if (peer >= 0) ::close(peer);
  }
  void hang_up() { ::close(std::exchange(peer, -1)); }
  void turn() {
    socket->turn();
    // What is unread is for the caller to take: nothing else may come before.
    REQUIRE(ring.turn(receive.unread().empty() ? 1'000'000 : 0) >= 0);
  }
  void run_until_over() {
    while (!socket->over()) turn();
  }
};

std::vector<uint8_t> some_bytes(test::Random& random, size_t count) {
  std::vector<uint8_t> bytes(count);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.below(256));
  return bytes;
}

}  // namespace

TEST_CASE("link socket: bytes go both ways in order, many times what the rings hold") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  Linked linked;
  const std::vector<uint8_t> out = some_bytes(random, 40 * kRingBytes + 4711);
  // The peer says everything back.
  std::thread echo([fd = linked.peer] {
    std::vector<uint8_t> buffer(10'000);
    for (;;) {
      const ssize_t got = ::read(fd, buffer.data(), buffer.size());
      if (got <= 0) return;
      for (ssize_t done = 0; done < got;) {
        const ssize_t put =
            ::send(fd, buffer.data() + done, static_cast<size_t>(got - done), MSG_NOSIGNAL);
        if (put <= 0) return;
        done += put;
      }
    }
  });
  size_t given = 0;
  std::vector<uint8_t> back;
  while (back.size() < out.size()) {
    const size_t some = std::min({linked.send.space(), out.size() - given,
                                  static_cast<size_t>(random.between(1, kRingBytes))});
    if (some > 0) {
      std::memcpy(linked.send.reserve(some), out.data() + given, some);
      linked.send.commit(some);
      linked.send.publish();
      given += some;
    }
    linked.turn();
    // Not always: the ring fills, and nothing is received until there is room.
    if (random.chance(3)) continue;
    const std::span<const uint8_t> unread = linked.receive.unread();
    const auto taken = static_cast<size_t>(random.between(0, unread.size()));
    back.insert(back.end(), unread.begin(), unread.begin() + static_cast<ptrdiff_t>(taken));
    linked.receive.consume(taken);
  }
  CHECK(back == out);
  CHECK(linked.ends.empty());
  // Neither moves more at once than a ring holds, nor counts what moved nothing.
  CHECK(linked.counts.link_sends > out.size() / kRingBytes);
  CHECK(linked.counts.link_sends <= out.size());
  CHECK(linked.counts.link_receives > out.size() / kRingBytes);
  CHECK(linked.counts.link_receives <= out.size());
  linked.socket->shut("enough");
  linked.run_until_over();
  CHECK(linked.ends == std::vector<std::string>{"enough"});
  echo.join();
}

TEST_CASE("link socket: a send is counted once, and a turn that moves nothing is not") {
  Linked linked;
  for (uint64_t sends = 1; sends <= 2; ++sends) {
    std::memcpy(linked.send.reserve(8), "farewell", 8);
    linked.send.commit(8);
    linked.send.publish();
    for (int i = 0; i < 3; ++i) {
      linked.socket->turn();
      REQUIRE(linked.ring.turn(0) >= 0);
    }
    CHECK(linked.socket->all_sent());
    CHECK(linked.counts.link_sends == sends);
  }
  CHECK(linked.counts.link_receives == 0);
  linked.socket->shut("enough");
  linked.run_until_over();
}

TEST_CASE("link socket: what came before the peer's end is there when the end is told, once") {
  Linked linked;
  REQUIRE(::write(linked.peer, "farewell", 8) == 8);
  linked.hang_up();
  linked.run_until_over();
  const std::span<const uint8_t> unread = linked.receive.unread();
  CHECK(std::string(unread.begin(), unread.end()) == "farewell");
  CHECK(linked.ends == std::vector<std::string>{"the peer closed the connection"});
  linked.socket->turn();
  linked.socket->shut("again");
  CHECK(linked.ends.size() == 1);
  CHECK_FALSE(linked.socket->busy());
  CHECK(linked.counts.link_receives == 1);  // the end moved nothing
  CHECK(linked.counts.link_sends == 0);
}

TEST_CASE("link socket: shut ends a receive and a send that the peer keeps waiting") {
  Linked linked;
  linked.turn();
  // More than the sockets hold, and nobody reads.
  for (int i = 0; i < 64; ++i) {
    if (linked.send.space() == kRingBytes) {
      std::memset(linked.send.reserve(kRingBytes), i, kRingBytes);
      linked.send.commit(kRingBytes);
      linked.send.publish();
    }
    linked.socket->turn();
    REQUIRE(linked.ring.turn(1'000) >= 0);
  }
  CHECK(linked.socket->busy());
  linked.socket->shut("given up");
  CHECK(linked.ends.empty());  // the kernel has its memory still
  linked.run_until_over();
  CHECK(linked.ends == std::vector<std::string>{"given up"});
  CHECK_FALSE(linked.send.unread().empty());
}

TEST_CASE("link socket: a full receive ring takes nothing until there is room") {
  Linked linked;
  const std::vector<uint8_t> bytes(kRingBytes + 1000, 7);
  std::thread writer([&linked, &bytes] {
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t put = ::write(linked.peer, bytes.data() + done, bytes.size() - done);
      if (put <= 0) return;
      done += static_cast<size_t>(put);
    }
  });
  while (linked.receive.space() > 0) linked.turn();
  linked.socket->turn();
  CHECK_FALSE(linked.socket->busy());
  linked.receive.consume(kRingBytes);
  while (linked.receive.unread().size() < 1000) linked.turn();
  writer.join();
  CHECK(linked.receive.unread().size() == 1000);
  linked.hang_up();
  linked.run_until_over();
}

}  // namespace tidemark
