// One life of a simulated machine's daemon: the core's Volume with a Host that starts nothing and
// ends nothing by itself. It does what csrc/engine does with a thread, step by step: whoever drives
// the simulation says which I/O ends and when a turn of the loop happens.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "buffers.h"
#include "core/volume.h"
#include "engine/byte_ring.h"
#include "engine/engine.h"
#include "machine.h"
#include "requests.h"

namespace tidemark {
struct VolumeImpl;
}

namespace tidemark::sim {

// What the end of the process, or of the power, leaves of an I/O in flight: it happened, in part,
// or not.
void take_part(const Io& io, uint64_t place, Disk& disk, Random& random);

// Of each link ring; the bounds of Faults are at most that.
inline constexpr size_t kRingBytes = size_t{2} << 20;

class Process final : public Host, public std::enable_shared_from_this<Process> {
 public:
  Process(Machine& machine, std::string name, EngineCallbacks callbacks);
  ~Process() override;
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  bool start(bool suspended, AttachReport* report, EngineError* error);

  // --- the simulation's steps ---
  // Ends one I/O of those under way, 0 <= pick < 1, oldest to newest. Text for the trace; empty:
  // there is none, or the disk hangs.
  std::string complete_io(double pick);
  void poll(uint64_t now_us);
  uint64_t next_deadline_us() const;
  void submit(const Ask& ask, uint64_t id);
  // It dies: what was in flight happened, in part, or not; of a killed one it may come late.
  void die(CrashKind kind);

  // --- what csrc/engine/engine.h offers ---
  void post(std::function<void(Volume&)> task);
  void start_frontend(const char* kind, bool needs_primary, std::string device,
                      Engine::FrontendDone done);
  void stop_frontend(bool force, Engine::FrontendDone done);
  VolumeStatus status();
  const std::string& device() const { return device_; }
  size_t feed(std::span<const uint8_t> bytes);
  std::span<const uint8_t> outgoing() { return send_->unread_or_sleep(); }
  void consumed(size_t bytes);
  RingMemory send_memory() const;
  void reset_link_bytes();
  void close(bool abandon);

  // --- for checks and counters ---
  bool ended() const { return ended_; }
  bool serving() const { return !device_.empty(); }
  const std::vector<Io*>& in_flight() const { return out_; }
  const VolumeImpl* volume() const;  // null: it has ended, or is broken
  Requests& requests() { return requests_; }
  const Buffers& buffers() const { return buffers_; }
  size_t send_used() const { return send_->capacity() - send_->space(); }

  // Host
  void submit(Io* io) override;
  void complete(Request* request) override;
  uint8_t* buffer_get(size_t bytes) override;
  void buffer_put(uint8_t* buffer, size_t bytes) override;
  uint64_t random_u64() override { return machine_.random.next(); }
  void event(Event event) override;
  size_t send_space() override;
  uint8_t* send_reserve(size_t bytes) override;
  void send_commit(size_t bytes) override { send_->commit(bytes); }

 private:
  template <typename Step>
  void guarded(Step step);
  void run_tasks();
  void link_input();
  void begin_close(bool abandon);
  void end();
  int32_t perform(Io* io);
  void come_late(const Io& io);
  Disk& disk_of(const Io& io) const;
  uint64_t place_of(const Io& io) const;
  void judge_submitted(const Io& io);
  void judge_evictions(const Io& io);
  std::string describe(const Io& io) const;
  size_t send_bound() const;
  size_t receive_bound() const;

  Machine& machine_;
  const std::string name_;
  const EngineCallbacks callbacks_;
  Buffers buffers_;
  Requests requests_{buffers_};
  std::vector<Io*> out_;       // oldest first
  std::vector<uint32_t> hot_;  // extents, when the last log block was submitted
  std::shared_ptr<ByteRing> send_;
  std::shared_ptr<ByteRing> receive_;
  std::unique_ptr<Volume> volume_;
  std::deque<std::function<void()>> tasks_;
  std::string device_;
  size_t link_left_ = 0;
  uint64_t now_us_ = 0;
  bool constructing_ = true;
  bool starved_ = false;  // a buffer was refused
  bool again_ = false;
  bool closing_ = false;
  bool abandoned_ = false;
  bool stop_failed_ = false;
  bool ending_ = false;
  bool ended_ = false;
  bool broken_ = false;
};

}  // namespace tidemark::sim
