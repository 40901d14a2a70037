#include "engine/disk.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

namespace tidemark {
namespace {

constexpr uint64_t kData = 4u << 20;
constexpr uint64_t kMeta = 64u << 10;

// One turn, as the engine does it.
void turn(Ring& ring, Disk& disk) {
  disk.run_in_place();
  disk.deliver();
  disk.enter_ring();
  const bool sleeps = disk.in_flight() > 0 && !disk.waits_in_place();
  REQUIRE(ring.turn(sleeps ? 1'000'000 : 0) >= 0);
}

// A file: metadata area first, then the data.
struct Rig {
  explicit Rig(uint32_t memory_align = 1, bool can_punch = true, bool in_memory = false)
      : fd(memfd_create("disk", MFD_CLOEXEC)),
        disk(ring, area(kMeta, kData, memory_align, can_punch, in_memory),
             area(0, kMeta, 1, can_punch, in_memory), [this](Io* io) { finished.push_back(io); }) {
    REQUIRE(ftruncate(fd, kMeta + kData) == 0);
    REQUIRE(ring.open({}) == 0);
  }
  ~Rig() { close(fd); }
  Disk::Area area(uint64_t offset, uint64_t bytes, uint32_t align, bool can_punch,
                  bool in_memory) const {
    return {fd, offset, bytes, 512, align, can_punch, in_memory};
  }
  int run(Io* io) {
    finished.clear();
    disk.submit(io);
    CHECK(finished.empty());
    while (disk.in_flight() > 0) turn(ring, disk);
    REQUIRE(finished.size() == 1);
    CHECK(finished[0] == io);
    return io->result;
  }
  int fd;
  Ring ring;
  std::vector<Io*> finished;
  Disk disk;
};

Io make(IoKind kind, uint64_t offset, uint64_t length, uint8_t* buffer = nullptr,
        uint8_t flags = 0) {
  Io io;
  io.kind = kind;
  io.flags = flags;
  io.offset = offset;
  io.length = length;
  io.buffer = buffer;
  return io;
}

std::vector<uint8_t> pattern(size_t bytes, uint8_t seed) {
  std::vector<uint8_t> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<uint8_t>(i * 13 + seed);
  return out;
}

TEST_CASE("data and metadata land in their areas, with aligned and with odd buffers") {
  for (const auto& [align, in_memory] : {std::pair(1u, false), std::pair(4096u, false),
                                         std::pair(1u, true), std::pair(4096u, true)}) {
    Rig rig(align, true, in_memory);
    std::vector<uint8_t> written = pattern(700'416 + 1, 3);
    Io io = make(IoKind::kWrite, 4096, 700'416, written.data() + 1, kIoFua);
    CHECK(rig.run(&io) == 0);
    std::vector<uint8_t> meta = pattern(4096, 9);
    io = make(IoKind::kWrite, 8192, 4096, meta.data(), kIoFua);
    io.target = IoTarget::kMeta;
    CHECK(rig.run(&io) == 0);

    std::vector<uint8_t> file(700'416);
    REQUIRE(pread(rig.fd, file.data(), file.size(), kMeta + 4096) == 700'416);
    CHECK(std::memcmp(file.data(), written.data() + 1, file.size()) == 0);
    REQUIRE(pread(rig.fd, file.data(), 4096, 8192) == 4096);
    CHECK(std::memcmp(file.data(), meta.data(), 4096) == 0);

    std::vector<uint8_t> back(700'416 + 1);
    io = make(IoKind::kRead, 4096, 700'416, back.data() + 1);
    CHECK(rig.run(&io) == 0);
    CHECK(std::memcmp(back.data() + 1, written.data() + 1, 700'416) == 0);
    io = make(IoKind::kFlush, 0, 0);
    CHECK(rig.run(&io) == 0);
  }
}

TEST_CASE("discard and write-zeroes leave zeroes, also where holes cannot be punched") {
  for (const bool can_punch : {true, false}) {
    for (const IoKind kind : {IoKind::kDiscard, IoKind::kWriteZeroes}) {
      for (const uint8_t flags : {uint8_t{0}, kIoFua, kIoNoUnmap}) {
        Rig rig(1, can_punch, flags == kIoFua);
        std::vector<uint8_t> data = pattern(kData, 1);
        Io io = make(IoKind::kWrite, 0, kData, data.data());
        CHECK(rig.run(&io) == 0);
        io = make(kind, 512, kData - 1024, nullptr, flags);
        CHECK(rig.run(&io) == 0);
        std::memset(data.data() + 512, 0, kData - 1024);
        std::vector<uint8_t> file(kData);
        REQUIRE(pread(rig.fd, file.data(), kData, kMeta) == static_cast<ssize_t>(kData));
        CHECK(file == data);
      }
    }
  }
}

TEST_CASE("an I/O outside of its area is refused and touches nothing") {
  Rig rig;
  std::vector<uint8_t> data(8192, 0xff);
  for (const uint64_t offset : {kMeta - 4096, kMeta, UINT64_MAX - 4095}) {
    Io io = make(IoKind::kWrite, offset, 8192, data.data());
    io.target = IoTarget::kMeta;
    CHECK(rig.run(&io) == -EINVAL);
  }
  Io io = make(IoKind::kWrite, 100, 512, data.data());
  CHECK(rig.run(&io) == -EINVAL);
  uint8_t first = 1;
  REQUIRE(pread(rig.fd, &first, 1, kMeta) == 1);
  CHECK(first == 0);
}

void check_bad_file(Rig& rig, bool in_memory) {
  std::vector<uint8_t> data(8192);
  std::vector<Io*> finished;
  Disk::Area bad;
  bad.bytes = kData;
  bad.can_punch = true;
  bad.in_memory = in_memory;
  Disk disk(rig.ring, bad, bad, [&](Io* done) { finished.push_back(done); });
  for (const IoKind kind :
       {IoKind::kRead, IoKind::kWrite, IoKind::kFlush, IoKind::kDiscard, IoKind::kWriteZeroes}) {
    Io failing = make(kind, 0, kind == IoKind::kFlush ? 0 : 4096, data.data());
    disk.submit(&failing);
    while (disk.in_flight() > 0) turn(rig.ring, disk);
    CHECK(failing.result == -EBADF);
  }
  CHECK(finished.size() == 5);
}

TEST_CASE("a file that became shorter fails the read, and a bad file every kind") {
  for (const bool in_memory : {false, true}) {
    Rig rig(1, true, in_memory);
    std::vector<uint8_t> data(8192);
    REQUIRE(ftruncate(rig.fd, kMeta + 4096) == 0);
    Io io = make(IoKind::kRead, 0, 8192, data.data());
    CHECK(rig.run(&io) == -EIO);
    check_bad_file(rig, in_memory);
  }
}

TEST_CASE("on a filesystem in memory what is small does not go through the ring") {
  Rig rig(1, true, true);
  std::vector<uint8_t> data = pattern(128u << 10, 5);
  for (const IoKind kind : {IoKind::kWrite, IoKind::kRead, IoKind::kFlush}) {
    Io io = make(kind, 0, kind == IoKind::kFlush ? 0 : 64u << 10, data.data());
    rig.finished.clear();
    rig.disk.submit(&io);
    CHECK(rig.ring.in_flight() == 0);
    rig.disk.run_in_place();
    CHECK(rig.finished.empty());  // nobody is told from within the step that submits
    CHECK(rig.disk.undelivered());
    rig.disk.deliver();
    REQUIRE(rig.finished.size() == 1);
    CHECK(io.result == 0);
  }
  Io large = make(IoKind::kWrite, 0, data.size(), data.data());
  rig.disk.submit(&large);
  CHECK(rig.ring.in_flight() == 0);  // others go first
  rig.disk.enter_ring();
  CHECK(rig.ring.in_flight() == 1);
  while (rig.disk.in_flight() > 0) turn(rig.ring, rig.disk);
}

TEST_CASE("what is done in place and has not been handed back survives an exception") {
  std::vector<Io*> finished;
  Rig rig;
  const Disk::Area area = rig.area(0, kMeta, 1, true, true);
  Disk disk(rig.ring, area, area, [&](Io* io) {
    finished.push_back(io);
    if (finished.size() == 1) throw std::bad_alloc();
  });
  std::vector<uint8_t> data(4096);
  Io first = make(IoKind::kWrite, 0, 4096, data.data());
  Io second = make(IoKind::kWrite, 4096, 4096, data.data());
  disk.submit(&first);
  disk.submit(&second);
  disk.run_in_place();
  CHECK_THROWS_AS(disk.deliver(), std::bad_alloc);
  CHECK(disk.undelivered());
  disk.deliver();
  CHECK(finished == std::vector<Io*>{&first, &second});
  CHECK(disk.in_flight() == 0);
}

TEST_CASE("what waits to enter the ring does so in its order, once, and not after abandon") {
  Rig rig;
  std::vector<uint8_t> data(4096);
  Io flush = make(IoKind::kFlush, 0, 0);
  Io outside = make(IoKind::kWrite, kData, 4096, data.data());
  Io write = make(IoKind::kWrite, 0, 4096, data.data());
  for (Io* io : {&flush, &outside, &write}) rig.disk.submit(io);
  rig.disk.enter_ring();
  CHECK(rig.ring.in_flight() == 3);
  rig.disk.enter_ring();
  CHECK(rig.ring.in_flight() == 3);
  while (rig.disk.in_flight() > 0) turn(rig.ring, rig.disk);
  CHECK(rig.finished.size() == 3);
  // Those that only fail come back in the order in which they went.
  rig.finished.clear();
  std::vector<Io> refused(3, outside);
  for (Io& io : refused) rig.disk.submit(&io);
  while (rig.disk.in_flight() > 0) turn(rig.ring, rig.disk);
  CHECK(rig.finished == std::vector<Io*>{&refused[0], &refused[1], &refused[2]});
  rig.disk.submit(&write);
  rig.disk.abandon();
  rig.disk.enter_ring();
  CHECK(rig.disk.in_flight() == 0);
  CHECK(rig.ring.in_flight() == 0);
}

TEST_CASE("after abandon nothing is handed back") {
  for (const bool in_memory : {false, true}) {
    Rig rig(1, true, in_memory);
    std::vector<uint8_t> data(4096);
    Io io = make(IoKind::kWrite, 0, 4096, data.data());
    rig.disk.submit(&io);
    rig.disk.abandon();
    while (rig.disk.in_flight() > 0) turn(rig.ring, rig.disk);
    Io late = make(IoKind::kWrite, 0, 4096, data.data());
    rig.disk.submit(&late);
    CHECK(rig.disk.in_flight() == 0);
    CHECK(rig.finished.empty());
  }
}

}  // namespace
}  // namespace tidemark
