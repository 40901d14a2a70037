// A volume: the state machine between frontends, the backing disk, its metadata and the link to one
// peer. docs/ARCHITECTURE.md tells how the parts work together; docs/STATES.md has the state
// tables.
//
// One thread calls everything here. All times are microseconds of one monotonic clock, passed in.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/host.h"
#include "core/superblock.h"
#include "core/types.h"

namespace tidemark {

enum class Protocol : uint8_t { kA = 0, kB = 1, kC = 2 };
enum class Connection : uint8_t {
  kStandAlone = 0,  // no link
  kPrepared = 1,    // handshake agreed, metadata durable, waiting for the peer to say the same
  kExchangingMaps = 2,
  kSyncSource = 3,
  kSyncTarget = 4,
  kConnected = 5,  // established, nothing to resync
};
const char* role_text(Role role);
const char* disk_text(DiskState disk);
const char* connection_text(Connection connection);

// What an error of the disk or its metadata does to a primary's requests (docs/STATES.md).
enum class OnIoError : uint8_t { kPassOn = 0, kDetach = 1, kSuspend = 2 };

// Values that policy may change at any time.
struct Limits {
  OnIoError on_io_error = OnIoError::kPassOn;
  uint32_t window_writes = 2048;           // protocol A: outstanding writes; 1..65,536
  uint64_t window_bytes = 64u << 20;       // protocol A: outstanding bytes; 4 KiB..16 GiB
  uint64_t flush_interval_us = 5'000'000;  // lazy map write-back and retiring of idle extents
  uint64_t peer_timeout_us = 6'000'000;    // nothing heard for so long: the link is gone
  uint64_t ping_interval_us = 1'000'000;
  uint64_t epoch_interval_us = 20'000;  // longest time an epoch stays open
  // A link that has closed so many ends, and another one follows: far from where numbers begin
  // anew, which nothing that waits for an epoch could tell from "none".
  uint32_t epochs_max = 0xf0000000;
  uint32_t resync_requests = 512;  // runs of dirty chunks that are read, sent or not yet durable
};

// What the handshake tells the peer, and what the decision is made from.
struct HandshakeState {
  uint64_t serial = 0;  // of this state; Volume::link_prepare refuses when it has changed since
  bool idle = false;    // no write of an old link is under way (R16); only then may it be told
  Role role{};
  DiskState disk{};
  uint64_t volume_bytes = 0;
  uint32_t chunk_bytes = 0;
  Uuid node_id;
  uint64_t current = 0;
  uint64_t bitmap = 0;  // B of the slot bound to the peer asked for, 0 without
  std::array<uint64_t, kHistory> history = {};
  uint32_t flags = 0;  // superblock's node flags
  uint32_t slot = kNoSlot;
  uint32_t slot_flags = 0;
  uint64_t dirty_chunks = 0;  // of that slot; chunk count when the slot is all dirty or unbound
};

enum class SyncSide : uint8_t { kNone = 0, kSource = 1, kTarget = 2 };
struct LinkParams {
  uint64_t serial = 0;  // HandshakeState::serial that the decision was made from
  Uuid peer_id;
  std::string peer_name;     // for people, cut to 31 bytes
  uint32_t incarnation = 0;  // the same on both ends, not 0 (R16)
  Protocol protocol = Protocol::kC;
  SyncSide side = SyncSide::kNone;
  bool full = false;             // with a side: everything, not by map
  uint64_t sync_generation = 0;  // with full: fresh random number agreed in the handshake, becomes
                                 // the source's B and the target's C
  uint64_t peer_current = 0;
  uint64_t peer_bitmap = 0;
  std::array<uint64_t, kHistory> peer_history = {};
  uint32_t peer_flags = 0;
  Role peer_role{};
  DiskState peer_disk = DiskState::kUpToDate;
};

struct PeerStatus {
  bool in_use = false;
  Uuid node_id;
  std::string name;
  uint32_t flags = 0;
  uint64_t bitmap_generation = 0;
  uint64_t dirty_chunks = 0;
  uint64_t dirty_bytes = 0;
};
struct ResyncStatus {
  bool active = false;
  bool target = false;
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;
  uint64_t started_us = 0;
  uint64_t chunks_sent = 0;        // source: dirty chunks read and sent
  uint64_t unreadable_chunks = 0;  // source: those of the rest that cannot be read here
};
// How the owner's thread worked; the owner fills it in. Requests and bytes divided by these are the
// sizes of its batches.
struct ThreadStatus {
  uint64_t wakeups = 0;          // it slept, and something woke it
  uint64_t request_batches = 0;  // turns of its loop that took requests
  // System calls and ring entries that moved bytes of the link; 0 where others move them.
  uint64_t link_sends = 0;
  uint64_t link_receives = 0;
};
struct VolumeStatus {
  uint64_t now_us = 0;
  uint64_t age_us = 0;  // how old all this is; 0: as new as was asked for
  Role role{};
  DiskState disk{};
  Connection connection{};
  uint32_t link_slot = kNoSlot;
  Role peer_role{};
  DiskState peer_disk{};
  Protocol protocol{};
  uint64_t volume_bytes = 0;
  uint32_t chunk_bytes = 0;
  uint32_t extent_bytes = 0;
  uint32_t log_extents = 0;
  uint32_t log_hot = 0;
  uint64_t log_transactions = 0;
  uint64_t current = 0;
  uint32_t flags = 0;
  uint64_t stale_map_blocks = 0;
  bool suspended = false;
  std::string suspend_reason;
  std::string disk_reason;  // the error that the disk failed with, for people
  uint64_t requests_in_flight = 0;
  uint64_t in_flight_writes = 0;  // transfer log, application writes
  uint64_t in_flight_bytes = 0;
  uint64_t reads = 0, writes = 0, flushes = 0, discards = 0;
  uint64_t read_bytes = 0, written_bytes = 0;
  uint64_t disk_errors = 0;                     // I/O on the disk or its metadata that failed
  uint64_t remote_reads = 0;                    // answered by the peer, for want of a disk
  uint64_t sent_bytes = 0, received_bytes = 0;  // frames with headers
  uint64_t resync_sent_bytes = 0, resync_received_bytes = 0;  // volume bytes covered by resync
  uint64_t resync_wire_bytes =
      0;  // payload bytes that resync put on the wire (zero runs cost none)
  uint64_t marked_by_replay_chunks = 0;  // what the last attach's log replay marked
  std::array<PeerStatus, kMaxPeerSlots> peers;
  ResyncStatus resync;
  ThreadStatus thread;
};

// What attach found; made by core/attach.h.
struct Attachment;

using Done = std::function<void(
    int error, const std::string& message)>;  // error 0 or -errno; message for people

class Volume {
 public:
  // Takes over what attach() read. `meta_shares_device`: a flush of the data makes metadata durable
  // too.
  Volume(Host& host, std::unique_ptr<Attachment> attachment, uint32_t block_bytes,
         bool meta_shares_device);
  ~Volume();
  Volume(const Volume&) = delete;
  Volume& operator=(const Volume&) = delete;

  // --- events ---
  void submit(Request* request);
  void io_done(Io* io);  // calls io->done
  // Bytes from the peer, all that are unread, contiguous. Returns how many were used (whole
  // frames); the rest comes again, with more behind it.
  size_t link_input(std::span<const uint8_t> bytes);
  // What held the last link_input() back is over: what it left is to be given again, without
  // waiting for more. A wait for memory is not meant, the host knows when it has some.
  bool takes_input() const;
  // In each turn of the owner's loop, after other events, once or more often: starts log writes,
  // epochs, resync, acknowledgements. `now_us` never goes back.
  void poll(uint64_t now_us);
  // When poll() must be called at the latest even if nothing happens.
  uint64_t next_deadline_us() const;

  // --- commands (answers come through `done`, possibly from inside the call) ---
  void set_limits(const Limits& limits);
  void promote(bool force, Done done);  // R18
  void demote(Done done);  // R13, R18; refused (-EBUSY) while requests are in flight for longer
                           // than the drain
  void invalidate(
      uint32_t slot,
      Done done);  // this copy is worth nothing: full resync from that peer at the next handshake
  void suspend(const std::string& why);  // requests wait (reads too)
  void drop_suspended();  // those that wait fail, and until the next submit() those that would have
                          // to; it stays suspended
  void resume();
  void stop(Done done);  // clean: link down, all bits on disk, log empty; nothing may be submitted
                         // after it
  void outdate_peer(
      Done done);  // orderly disconnect of a primary: tell the peer that it is going to be outdated

  // --- link ---
  HandshakeState handshake_state(const Uuid& peer_id) const;
  // Bind the slot, make durable what must be before the first frame (R7, R17); then the state is
  // kPrepared and writes wait. -ESTALE: serial changed. -EBUSY: another link is there or not idle.
  // -ENOSPC: no free slot. -EPERM: a primary would become target.
  void link_prepare(const LinkParams& params, Done done);
  // The peer is prepared too: frames flow from now on. False when not kPrepared.
  bool link_start();
  void link_stop(const std::string& why);  // idempotent; kLinkDown and kLinkIdle follow
  bool send_control(
      const std::string& json);  // a kControl frame; false when there is no link or no room

  VolumeStatus status() const;
  Connection connection() const;
  uint64_t size_bytes() const;
  uint32_t block_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidemark
