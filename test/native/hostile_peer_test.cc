// A peer that passed the handshake and lies: it loses its link, and costs neither data nor memory.
#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <string>
#include <vector>

#include "core/frame.h"
#include "core/volume_impl.h"
#include "frame_bytes.h"
#include "world.h"

namespace tidemark::test {
namespace {

constexpr uint64_t kMiB = 1u << 20;
constexpr uint32_t kIncarnation = 7;
constexpr uint64_t kSecondUs = 1'000'000;

// One node, and a peer of which only the frames are there.
struct Stage : World {
  explicit Stage(uint32_t chunk_bytes = 4096)
      : World(test_seed(), geometry(chunk_bytes), 9 * kMiB) {
    for (uint8_t& byte : peer.bytes) byte = static_cast<uint8_t>(random.next());
    a.attach();
  }
  static Geometry geometry(uint32_t chunk_bytes) {
    Geometry geometry;
    geometry.chunk_bytes = chunk_bytes;
    geometry.extent_bytes = 1u << 20;
    geometry.log_extents = 7;
    return geometry;
  }
  void link(SyncSide side) {
    const HandshakeState state = a.volume().handshake_state(peer);
    LinkParams params;
    params.serial = state.serial;
    params.peer_id = peer;
    params.incarnation = kIncarnation;
    params.side = side;
    params.full = side != SyncSide::kNone;
    params.sync_generation = 0x1234;
    params.peer_current = side == SyncSide::kNone ? state.current : 0x1234;
    params.peer_disk = DiskState::kUpToDate;
    int error = 1;
    a.volume().link_prepare(params, [&](int result, const std::string&) { error = result; });
    REQUIRE(run([&] { return error <= 0; }));
    REQUIRE(error == 0);
    REQUIRE(a.volume().link_start());
  }
  bool linked() { return a.volume().status().connection != Connection::kStandAlone; }
  uint64_t dirty() { return a.volume().status().peers[0].dirty_chunks; }
  std::string why() {
    for (const Event& event : a.events) {
      if (event.kind == EventKind::kLinkDown) return event.text;
    }
    return "";
  }
  static std::vector<uint8_t> frame(const FrameHeader& header,
                                    const std::vector<uint8_t>& payload) {
    return frame_bytes(header, kIncarnation, payload);
  }
  // The longest that there is.
  static std::vector<uint8_t> long_frame() {
    FrameHeader header;
    header.type = FrameType::kControl;
    return frame(header, std::vector<uint8_t>(kFramePayloadMax, 'x'));
  }
  // Over the wire, so much in each second from `from` on, until all was said or the link is gone.
  // Where in it that was.
  size_t drip(const std::vector<uint8_t>& bytes, size_t from, size_t bytes_a_second) {
    size_t at = from;
    a.wire_in.assign(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(at));
    poll(a);
    while (at < bytes.size() && linked()) {
      now_us += kSecondUs;
      const size_t end = std::min(bytes.size(), at + bytes_a_second);
      a.wire_in.insert(a.wire_in.end(), bytes.begin() + static_cast<ptrdiff_t>(at),
                       bytes.begin() + static_cast<ptrdiff_t>(end));
      at = end;
      poll(a);
    }
    return at;
  }
  // The volume hears it at once; everything that can end then ends.
  void say(const FrameHeader& header, const std::vector<uint8_t>& payload = {}) {
    const std::vector<uint8_t> bytes = frame(header, payload);
    // What is held up is said again.
    for (size_t used = 0, tries = 0; used == 0 && tries < 100; ++tries) {
      used = a.volume().link_input(bytes);
      settle();
    }
  }
  void settle() { World::settle(a); }
  FrameHeader write(uint64_t number, uint64_t offset, uint32_t length, uint8_t flags) {
    FrameHeader header;
    header.type = FrameType::kZeroes;
    header.flags = flags;
    header.sequence = number;
    header.epoch = epoch;
    header.offset = offset;
    header.length = length;
    return header;
  }
  void close_epoch(uint64_t last, uint64_t writes) {
    FrameHeader header;
    header.type = FrameType::kBarrier;
    header.sequence = last;
    header.epoch = epoch++;
    header.offset = writes;
    say(header);
  }
  void finish_resync(uint64_t last) {
    FrameHeader header;
    header.type = FrameType::kSyncDone;
    header.sequence = last;
    header.offset = 0x1234;
    say(header);
  }
  Uuid peer;
  uint32_t epoch = 1;
};

}  // namespace

// R17: what the source says counts only when what it sent says the same.
TEST_CASE("a source that ends a resync without sending it loses its link, and nothing is clean") {
  Stage stage;
  stage.link(SyncSide::kTarget);
  const uint64_t chunks = stage.dirty();
  REQUIRE(chunks > 0);
  stage.finish_resync(0);
  CHECK_FALSE(stage.linked());
  CHECK(stage.why().find("did not come, or are not durable yet") != std::string::npos);
  CHECK(stage.dirty() == chunks);
  CHECK(stage.a.volume().status().disk == DiskState::kInconsistent);
}

TEST_CASE("a source that ends a resync before what it sent is durable loses its link") {
  for (const bool closes : {false, true}) {
    Stage stage;
    stage.link(SyncSide::kTarget);
    const uint64_t size = stage.a.size();
    uint64_t number = 0;
    for (uint64_t at = 0; at < size; at += kMiB) {
      const auto length = static_cast<uint32_t>(std::min(kMiB, size - at));
      stage.say(stage.write(++number, at, length, kFrameResync));
    }
    REQUIRE(stage.linked());
    CHECK(stage.dirty() > 0);
    if (closes) stage.close_epoch(number, number);
    stage.finish_resync(number);
    stage.settle();
    CHECK(stage.linked() == closes);
    CHECK((stage.a.volume().status().disk == DiskState::kUpToDate) == closes);
    CHECK((stage.dirty() == 0) == closes);
  }
}

TEST_CASE("a peer that never closes an epoch loses its link at the bound of a transfer log") {
  Stage stage;
  stage.link(SyncSide::kNone);
  uint64_t number = 0;
  while (stage.linked() && number < 2 * kTransferEntries) {
    stage.say(stage.write(number + 1, number % 1000 * 512, 512, 0));
    ++number;
  }
  CHECK(number == kTransferEntries + 1);
  CHECK(stage.why().find("more than a peer may have") != std::string::npos);
}

TEST_CASE("a source whose pieces never make whole chunks loses its link") {
  constexpr uint32_t kChunkBytes = 1u << 20;
  Stage stage(kChunkBytes);
  stage.link(SyncSide::kTarget);
  uint64_t number = 0;
  const uint64_t pieces = stage.a.size() / 1024;
  REQUIRE(pieces > kTargetPiecesMax);
  for (uint64_t piece = 0; piece < pieces && stage.linked(); ++piece) {
    stage.say(stage.write(++number, piece * 1024, 512, kFrameResync));
    if (number % 100 == 0) stage.close_epoch(number, 100);
  }
  CHECK(kChunkBytes * stage.dirty() >= stage.a.size());
  CHECK(stage.why().find("no whole chunks") != std::string::npos);
}

TEST_CASE("a peer that asks and does not read loses its link, and its questions cost no memory") {
  Stage stage;
  stage.link(SyncSide::kNone);
  stage.a.wire_bytes = 0;
  FrameHeader outdate;
  outdate.type = FrameType::kOutdate;
  uint64_t asked = 0;
  while (stage.linked() && asked < 2 * kControlsMax) {
    stage.say(outdate);
    ++asked;
  }
  CHECK(asked == kControlsMax + 1);
  CHECK(stage.why().find("does not read") != std::string::npos);
}

TEST_CASE("a peer that outdates before the last time was answered loses its link") {
  Stage stage;
  stage.link(SyncSide::kNone);
  FrameHeader outdate;
  outdate.type = FrameType::kOutdate;
  outdate.incarnation = kIncarnation;
  std::vector<uint8_t> bytes(2 * kFrameHeaderBytes);
  for (const size_t at : {size_t{0}, size_t{kFrameHeaderBytes}}) {
    encode_frame_header(
        outdate, std::span<uint8_t, kFrameHeaderBytes>(bytes.data() + at, kFrameHeaderBytes));
  }
  stage.a.volume().link_input(bytes);
  CHECK_FALSE(stage.linked());
  CHECK(stage.why().find("was not answered yet") != std::string::npos);
}

// It would keep the only link of the volume.
TEST_CASE("a peer whose frame comes a byte in a second loses its link") {
  const std::vector<uint8_t> bytes = Stage::long_frame();
  const size_t timeout_s = Limits().peer_timeout_us / kSecondUs;
  for (const size_t from : {size_t{0}, size_t{kFrameHeaderBytes}, size_t{100'000}}) {
    for (const SyncSide side : {SyncSide::kNone, SyncSide::kTarget}) {
      Stage stage;
      stage.link(side);
      const size_t said = stage.drip(bytes, from, 1) - from;
      CHECK_FALSE(stage.linked());
      CHECK(said > timeout_s);
      CHECK(said <= timeout_s + 2);
      CHECK(stage.why().find("the peer's frame does not end: ") == 0);
    }
  }
}

TEST_CASE("a slow peer keeps its link while its longest frame comes") {
  const uint64_t timeout_s = Limits().peer_timeout_us / kSecondUs;
  const std::vector<uint8_t> bytes = Stage::long_frame();
  Stage stage;
  stage.link(SyncSide::kNone);
  CHECK(stage.drip(bytes, 0, kHeardBytes / timeout_s + 1) == bytes.size());
  CHECK(stage.linked());
  const bool came =
      std::any_of(stage.a.events.begin(), stage.a.events.end(),
                  [](const Event& event) { return event.kind == EventKind::kControl; });
  CHECK(came);
}

TEST_CASE("what the peer could not say while this node did not run is not its fault") {
  const std::vector<uint8_t> bytes = Stage::long_frame();
  const size_t half = bytes.size() / 2;
  const uint64_t timeout_us = Limits().peer_timeout_us;
  for (const bool goes_on : {true, false}) {
    Stage stage;
    stage.link(SyncSide::kNone);
    stage.drip({bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(half)}, 0, half / 2);
    stage.now_us += 20 * timeout_us;
    stage.poll(stage.a);
    CHECK(stage.linked());
    const uint64_t began_us = stage.now_us;
    if (goes_on) {
      CHECK(stage.drip(bytes, half, kHeardBytes) == bytes.size());
      CHECK(stage.linked());
    } else {
      while (stage.linked() && stage.now_us - began_us < 2 * timeout_us) {
        stage.now_us += kSecondUs;
        stage.poll(stage.a);
      }
      CHECK_FALSE(stage.linked());
      CHECK(stage.now_us - began_us <= timeout_us + kSecondUs);
    }
  }
}

// A write of the target's waits for the piece that is being read for it.
TEST_CASE(
    "a target that writes into what is being copied to it does not keep the link from ending") {
  Stage stage;
  stage.link(SyncSide::kSource);
  stage.a.volume().poll(stage.now_us);
  REQUIRE(stage.a.io_count() > 0);
  FrameHeader header = stage.write(1, 0, kMiB, 0);
  header.incarnation = kIncarnation;
  std::vector<uint8_t> bytes(kFrameHeaderBytes);
  encode_frame_header(header, std::span<uint8_t, kFrameHeaderBytes>(bytes.data(), bytes.size()));
  REQUIRE(stage.a.volume().link_input(bytes) == bytes.size());
  stage.a.volume().link_stop("cut");
  for (int turn = 0; turn < 10; ++turn) stage.settle();
  CHECK(stage.a.volume().handshake_state(stage.peer).idle);
}

// Not the peer's fault: a stop lets in nothing new, and what was let in ends well.
TEST_CASE("a stop does not hold up the writes that were let in before") {
  World world(test_seed(), Stage::geometry(4096), 9 * kMiB);
  world.a.attach();
  int error = 1;
  REQUIRE(world.finish([&](Done done) { world.a.volume().promote(true, done); }, &error));
  REQUIRE(error == 0);
  Request* cold = world.write(world.a, 5 * kMiB, 4096, 0x11);
  REQUIRE(cold->result == 1);  // waits for the activity log
  const uint64_t began_us = world.now_us;
  error = 1;
  REQUIRE(world.finish([&](Done done) { world.a.volume().stop(done); }, &error));
  CHECK(error == 0);
  CHECK(cold->result == 0);
  CHECK(world.now_us - began_us < 5'000'000);
}

}  // namespace tidemark::test
