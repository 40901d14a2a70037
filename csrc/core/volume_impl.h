// The parts of a volume and what they share. One class, several files named by what they do:
//   volume.cc     life, commands, status        writes.cc   the path of a write (write.h)
//   roles.cc      promote, demote, generations  link.cc     link life cycle
//   receiver.cc   frames in, epochs of the peer sending.cc  frames out, the transfer log
//   resync.cc     maps, source, target, end of a resync
//   disk_fault.cc disks that fail, letting go   remote.cc   reads of a primary without a disk
#pragma once

#include <array>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/activity_log.h"
#include "core/attach.h"
#include "core/check.h"
#include "core/frame.h"
#include "core/metadata_writer.h"
#include "core/pace.h"
#include "core/range_lock.h"
#include "core/transfer_log.h"
#include "core/volume.h"
#include "core/write.h"

namespace tidemark {

inline constexpr uint32_t kTransferEntries = 8192;  // bound of the transfer log
inline constexpr size_t kSendHeadroom =
    64u << 10;  // kept free in the send ring for acknowledgements and barriers
inline constexpr uint32_t kZeroPieceMax = 16u << 20;    // bytes of one zero or discard piece
inline constexpr uint32_t kResyncTaskBytes = 1u << 20;  // or one chunk, if that is larger
inline constexpr uint32_t kResyncReadsMax = 16;         // runs of dirty chunks being read and sent
// Sent by a resync and not durable at the target. An epoch is closed at half of it, so that one
// flush there serves much, and the next half is on its way meanwhile.
inline constexpr uint64_t kResyncUndurableMax = 64u << 20;
inline constexpr uint64_t kResyncEpochFactor = 5;  // an epoch of resync alone stays open longer
inline constexpr uint64_t kApplicationRecentUs = 50'000;  // it writes, for a resync's pace
inline constexpr uint64_t kResyncPatienceUs = 100'000;  // then the application waits for one piece
inline constexpr uint32_t kMapPieceBytes = 32u << 10;
inline constexpr uint32_t kReceivedWritesMax = 1024;  // peer's writes under way here
inline constexpr uint32_t kReceivedEpochsMax = 4096;
// Acknowledgements that found no room: more than that a peer of ours never has outstanding. All of
// them together fit one frame.
inline constexpr uint32_t kWrittenMax = kTransferEntries;
static_assert((kWrittenMax + kReceivedWritesMax) * kWrittenRangeBytes <= kFramePayloadMax);
// Answers that the peer does not read: honest peers have far fewer waiting.
inline constexpr uint32_t kControlsMax = kTransferEntries;
// Resynced ranges that do not make whole chunks yet: a source of ours sends the pieces of a few
// chunks at a time, in order.
inline constexpr uint32_t kTargetPiecesMax = kTransferEntries;
inline constexpr uint32_t kEpochWritesMax = 256;  // bookkeeping close
inline constexpr uint32_t kSweepBlocks = 64;
inline constexpr uint32_t kRetireMax = 64;
inline constexpr uint64_t kStallTimeouts =
    7;  // peer timeouts without any acknowledgement: its disk hangs, the link is given up
// So much of a frame that is not finished counts as heard from the peer, as a finished one does:
// the slowest peer that is kept sends as much in each peer timeout.
inline constexpr size_t kHeardBytes = 4096;
inline constexpr uint32_t kRemoteReadsMax = 64;  // frames that a diskless primary waits for
inline constexpr uint64_t kRemoteReadBytesMax = 16u << 20;
// Chunks that the source of a resync cannot read are tried again after a pause that doubles.
inline constexpr uint64_t kUnreadPauseMinUs = 1'000'000;
inline constexpr uint64_t kUnreadPauseMaxUs = 60'000'000;
inline constexpr uint64_t kFaultGraceUs = 1'000'000;  // until a node hangs up that told its peer of
                                                      // its failed disk

// A run of dirty chunks being copied to the target.
struct SyncTask {
  VolumeImpl* volume = nullptr;
  ByteRange range;             // whole chunks
  uint64_t next = 0;           // first byte not yet sent
  uint64_t durable_bytes = 0;  // acknowledged as durable there
  bool voided = false;         // something in it was marked since it was read, or failed (R9)
  ByteRange piece;
  uint8_t* buffer = nullptr;
  size_t buffer_bytes = 0;
  enum class Step : uint8_t { kIdle, kLocking, kReading, kReadDone, kWaiting } step = Step::kIdle;
  RangeLock lock;
  Io io;
};

// An epoch of the peer's, as seen by the receiver (R10).
struct ReceivedEpoch {
  uint32_t number = 0;
  uint64_t started = 0;
  uint64_t finished = 0;
  bool closed = false;
  bool hard = false;
  bool failed = false;
  std::vector<ByteRange> resynced;  // resync ranges that become equal when it is durable
};

// What an error came from: a write of the metadata, and a flush, fail the disk (R11).
enum class Fault : uint8_t { kRead, kWrite, kFlush, kMetadata };

// docs/STATES.md has the table.
struct DiskFault {
  enum class Use : uint8_t { kInUse, kFailed, kDetaching, kDiskless } use = Use::kInUse;
  std::string why;            // the first error, for people
  bool holes = false;         // a write or flush failed: the disk holds not one moment of the data
  bool fatal = false;         // kDetaching: the disk is kFailed if that comes to nothing
  bool rejoining = false;     // a secondary whose write failed: Inconsistent until resynced
  bool unrecorded = false;    // the superblock does not say yet what became of the disk
  bool resumed = false;       // kFailed, and a person said that requests are to be told
  uint64_t generation = 0;    // of the peer's copy, that is worked on; chosen here, kDetaching
  uint64_t hang_up_us = 0;    // when the link ends because of the disk; 0: it does not
  std::deque<Request*> held;  // came while kDetaching
};

// A read that the peer does for this diskless node, in frames of at most kFramePayloadMax.
struct RemoteRead {
  Io* io = nullptr;
  uint64_t asked = 0;  // bytes, from the start
  uint64_t answered = 0;
  int32_t error = 0;
};
struct RemoteFrame {
  std::list<RemoteRead>::iterator read;
  uint64_t at = 0;  // byte of the Io
  uint32_t length = 0;
};

// A read that this node does for a diskless peer.
struct ServedRead {
  VolumeImpl* volume = nullptr;
  FrameHeader header;
  ByteRange aligned;
  uint8_t* buffer = nullptr;
  uint32_t link_serial = 0;
  enum class Step : uint8_t { kLocking, kReading, kDone } step = Step::kLocking;
  RangeLock lock;
  Io io;
};

// What held link_input() back.
enum class InputWait : uint8_t {
  kNothing,    // no whole frame was left
  kState,      // holds_input(): a link that is not active yet, a hard barrier, a change of the role
  kWriteRoom,  // a write, for writes before it to be done and acknowledged
  kEpochRoom,  // a write or a barrier, for epochs before it to be durable
  kMemory,     // a buffer
};

struct LinkState {
  Connection state = Connection::kStandAlone;
  LinkParams params;
  uint32_t slot = kNoSlot;
  uint32_t serial = 0;    // counts links, so that late acknowledgements of an old one are known
  bool idle = true;       // no write of the last link is under way (R16)
  bool stopping = false;  // down, but not idle yet
  uint64_t prepared_us = 0;
  uint64_t heard_us = 0;
  bool heard_now = false;  // since the last poll: the next one knows when that is
  uint64_t sent_us = 0;
  uint64_t progress_us = 0;  // the last acknowledgement, or when nothing waited for one
  Role peer_role{};
  DiskState peer_disk{};
  Role told_role{};  // this node's, in the handshake

  // sending
  uint64_t epoch_opened_us = 0;
  uint32_t resync_in_log = 0;       // resync entries of the transfer log
  uint64_t resync_bytes = 0;        // of them
  uint64_t resync_epoch_bytes = 0;  // of those in the open epoch
  uint64_t application_us = 0;      // when the application wrote last, 0 never
  uint32_t resync_in_epoch = 0;     // ... in the open epoch
  bool last_closed_hard = false;    // the last closed epoch ended with an ordering barrier
  uint64_t application_in_log = 0;
  uint64_t application_bytes = 0;
  uint64_t application_ahead = 0;  // bytes of them that are not known to be written there
  std::deque<FrameHeader>
      controls;  // headers that found no room (barriers, epoch acknowledgements, sync done ...)

  // receiving
  InputWait input_wait{};  // of the last link_input
  size_t unread = 0;       // bytes that it left
  size_t heard = 0;        // of them, when heard_us was set last
  uint64_t expect_sequence = 1;
  uint32_t receive_epoch = 1;
  uint32_t writes_out = 0;  // peer's writes under way here
  bool hard_wait = false;   // a hard barrier is not durable yet: nothing behind it is looked at
  std::deque<ReceivedEpoch> epochs;
  uint64_t epoch_writes = 0;  // of all epochs in the list: a peer has no more in its transfer log
  bool outdating = false;     // the peer's kOutdate is being made durable
  bool epoch_flushing = false;
  uint32_t epoch_flush_upto = 0;
  Io epoch_flush_io;
  std::function<void(bool)> flushed_before_link;  // goes on with link_prepare()
  std::vector<WrittenRange> written;              // acknowledgements of this turn

  // resync
  uint64_t map_next = 0;  // first chunk of the map not yet sent
  bool map_sent = false;
  bool map_received = false;
  uint64_t map_receive_next = 0;
  uint64_t cursor = 0;  // source: where the pass over the map is
  std::list<SyncTask> tasks;
  std::vector<SyncTask*> sending;  // those of them that were not sent to their end
  Pace pace;
  const SyncTask* piece_waits = nullptr;  // the first whose piece was read and found no room ...
  uint64_t piece_waits_us = 0;            // ... since then
  bool resync_drained = false;            // nothing is left to be sent: what is open is closed
  // Source: chunks of a task that could not be read, which are read one by one from then on, and
  // those of them that failed alone. Made with the first error.
  std::unique_ptr<DirtyMap> suspects;
  std::unique_ptr<DirtyMap> unreadable;
  bool unread_only = false;      // nothing else is left to be copied; tried again at ...
  uint64_t unread_retry_us = 0;  // ... this time
  uint64_t unread_pause_us = 0;  // how long it waited last
  bool finishing = false;        // kSyncDone is prepared or sent
  uint64_t announced = 0;        // the generation that kSyncDone offered, 0 none
  uint64_t sync_started_us = 0;
  uint64_t sync_done_bytes = 0;
  uint64_t sync_chunks_sent = 0;
  std::map<uint64_t, uint64_t> target_done;  // target: durable resync ranges that do not make whole
                                             // chunks yet (begin -> end)
  bool target_finishing = false;
  Done outdate_done;

  // disks that failed
  bool peer_detached = false;  // the peer is primary without a disk: its slot gets nothing (R8)
  bool write_failed = false;  // a write failed here and not there: marked, and copied by a new link
  uint64_t next_read = 1;
};

struct VolumeImpl {
  enum class Handled : uint8_t { kYes, kLater, kFailed };

  VolumeImpl(Host& host_in, std::unique_ptr<Attachment> attachment_in, uint32_t block_bytes_in,
             bool shares_device);
  ~VolumeImpl();

  // --- volume.cc ---
  void submit(Request* request);
  void poll(uint64_t now);
  uint64_t next_deadline() const;
  DiskState disk_state() const;
  void changed() { ++state_serial; }
  void emit(EventKind kind, std::string text = {}) { host.event({kind, std::move(text)}); }
  void emit_disk() { emit(EventKind::kDiskState, disk_text(disk_state())); }
  void sweep();
  bool tracked(uint32_t slot) const { return (sb().slots[slot].flags & kSlotInUse) != 0; }
  bool tracks_anybody() const;
  VolumeStatus status() const;
  void complete_now(Request* request, int result);
  void set_suspended(const std::string& why);
  void drop_suspended();
  void resume();

  // --- disk_fault.cc ---
  void disk_fault(Fault fault, const std::string& why);
  void flush_failed(const char* whose, int error);
  bool broken() const { return fault.use == DiskFault::Use::kFailed; }
  bool detaching() const { return fault.use == DiskFault::Use::kDetaching; }
  bool diskless() const { return fault.use == DiskFault::Use::kDiskless; }
  bool peer_can_take_over() const;
  void fail_disk();
  void store_fault(uint32_t set, uint32_t clear);
  void record_fault();
  void begin_detach();
  void detach_acknowledged();
  void detach_abandoned();  // after the link went
  bool hold_failed(Request* request);
  bool waits_for_peer() const { return diskless() && !link_active(); }
  std::string waiting_reason() const;
  void drop_waiting();
  void poll_fault();
  void tell_disk();
  uint64_t generation() const { return diskless() ? fault.generation : sb().current; }
  Handled receive_disk(const FrameHeader& header);
  Handled receive_detach(const FrameHeader& header);
  void local_write_failed(Write* write);
  void dispatch_remote(Write* write);
  void start_again(Write* write);

  // --- remote.cc ---
  void read_data(Io* io);   // of this disk, or of the peer's
  bool read_again(Io* io);  // it failed here; true: the peer does it
  void pump_remote_reads();
  void remote_reads_lost();  // with the link
  void end_remote_io(Io* io, int32_t result);
  Handled receive_read(const FrameHeader& header);
  Handled receive_read_reply(const FrameHeader& header, std::span<const uint8_t> payload);
  void serve_read(ServedRead* read);
  bool send_read_reply(const ServedRead& read);
  void pump_served_reads();
  bool drop_served_reads();  // true when none is left

  // --- writes.cc ---
  void start_read(Request* request);
  void read_done(Write* write);
  void start_flush(Request* request);
  void start_write(Request* request);
  void begin(Write* write);  // takes the lock
  void next_piece(Write* write);
  void modify_piece(Write* write);  // after the read of a read-modify-write
  void enter_log(Write* write);
  void enter_send(Write* write);
  bool may_send(const Write* write) const;
  void dispatch(Write* write);
  void piece_done(Write* write);
  void settle(Write* write);  // complete it if nothing is left to wait for
  void finish(Write* write);
  void retry_log();
  void retry_send();
  void drain_gate();
  void fail_log_waiters();
  Write* new_write();
  void free_write(Write* write);
  ByteRange align_out(ByteRange range) const;
  void extents_of(ByteRange range, uint32_t* first, uint32_t* last) const;
  bool use_log(const Write* write) const;
  void mark_range(uint32_t slot, ByteRange range);
  void mark_absent(ByteRange range);  // for every tracked slot that does not receive it (R8)
  bool writes_held() const;           // no application write may be dispatched now
  uint64_t extent_bytes() const { return layout().geometry.extent_bytes; }

  // --- roles.cc ---
  void ensure_apart_generation();
  // True: it is to be offered to the linked peer.
  bool make_generation(MetadataWriter::Done done, uint32_t served = kNoSlot,
                       uint64_t wanted = kGenerationNone);
  bool gate_open();
  uint64_t fresh_generation();
  void promote(bool force, Done done);
  void demote(Done done);
  void settle_metadata(
      std::function<void()> change,
      MetadataWriter::Done done);  // all bits on disk, log empty, superblock changed (R13)
  // ... of a primary that leaves: first a generation, if a peer lacks what completed (R7)
  void settle_apart(std::function<void()> change, MetadataWriter::Done done);
  void when_quiet(bool wait_requests, uint64_t deadline_us, Done done);
  void check_quiet();
  void invalidate(uint32_t slot, Done done);
  void stop(Done done);
  void outdate_peer(Done done);
  void tell_role();
  void drain_peer(Done done);  // all that was sent until now is durable there, or the link is gone

  // --- link.cc ---
  HandshakeState handshake_state(const Uuid& peer) const;
  void link_prepare(const LinkParams& params, Done done);
  void flush_before_link(std::function<void(bool)> done);
  bool link_start();
  void link_stop(const std::string& why);
  void link_fail(const std::string& why) { link_stop(why); }
  void link_check_idle();
  bool link_active() const;  // frames flow
  bool receiving(uint32_t slot) const {
    return link_active() && link.slot == slot && !link.peer_detached;
  }
  void poll_link();
  void forgive_pause(uint64_t now);
  std::string silence() const;  // how the peer was not heard
  void set_peer_role(Role peer_role);
  void set_standing(DiskState standing);  // of a copy that is whole
  void share_standing();                  // ... with the peer in step
  void commit_standing();                 // ... and tells of it
  uint32_t find_slot(const Uuid& peer) const;
  uint32_t find_slot_named(const std::string& name) const;

  // --- sending.cc ---
  bool send_frame(FrameHeader header, const uint8_t* payload, bool headroom);
  void send_or_queue(const FrameHeader& header);
  void flush_controls();
  bool room_for(size_t payload_bytes) const;
  void append_sent(Write* write);
  uint32_t close_epoch(bool hard);
  uint64_t epoch_due_us() const;
  void forget_transfer_log();
  void release_peer(const TransferEntry& entry);
  void acknowledge_written(const FrameHeader& header, const std::vector<WrittenRange>& ranges);
  void acknowledge_epoch(uint32_t epoch);
  void pop_durable();
  bool send_control(const std::string& json);

  // --- receiver.cc ---
  size_t link_input(std::span<const uint8_t> bytes);
  bool takes_input() const;
  bool holds_input() const;  // whatever it is
  bool has_write_room() const;
  bool has_epoch_room() const;
  Handled wait_for(InputWait what);
  bool is_heard(bool waits_here) const;
  Handled handle(const FrameHeader& header, std::span<const uint8_t> payload);
  Handled receive_write(const FrameHeader& header, std::span<const uint8_t> payload);
  Handled receive_barrier(const FrameHeader& header);
  void received_write_done(Write* write);
  void pump_epochs();
  void epoch_flushed();
  void send_written();
  void fail_frame(const FrameHeader& header, const std::string& what);

  // --- resync.cc ---
  void sync_start();
  void send_maps();
  Handled receive_map(const FrameHeader& header, std::span<const uint8_t> payload);
  void maps_exchanged();
  void pump_resync();
  void task_step(SyncTask* task);
  void task_sent(SyncTask* task);
  void task_read(SyncTask* task);
  void task_send(SyncTask* task);
  bool resync_first() const;
  std::optional<ChunkRange> next_run();
  void task_unread(SyncTask* task);
  void wait_for_unread();
  void task_durable(SyncTask* task, ByteRange range, bool failed);
  void void_tasks(ByteRange range);
  void end_task(SyncTask* task);
  bool drop_tasks();  // true when none is left
  void check_finished();
  void announce_generation();
  Handled receive_sync_done(const FrameHeader& header);
  Handled receive_sync_done_ack(const FrameHeader& header);
  void target_durable(const std::vector<ByteRange>& ranges);

  DirtyMap* link_map() const {
    return link.slot == kNoSlot ? nullptr : attachment->maps[link.slot].get();
  }
  const Layout& layout() const { return attachment->layout; }
  Superblock& sb() { return attachment->superblock; }
  const Superblock& sb() const { return attachment->superblock; }
  PeerSlot& peer_slot(uint32_t slot) { return attachment->superblock.slots[slot]; }

  Host& host;
  std::unique_ptr<Attachment> attachment;
  const uint32_t block_bytes;
  std::unique_ptr<ActivityLog> log;
  MetadataWriter meta;
  RangeLocks locks;
  TransferLog transfer;
  Limits limits;
  uint64_t now_us = 0;
  Role role = Role::kSecondary;
  uint64_t state_serial = 1;
  bool stopped = false;
  bool role_changing = false;
  DiskFault fault;
  bool suspended = false;
  std::string suspend_reason;
  std::deque<Request*> suspended_requests;
  bool unserved = false;  // its device was taken away: nobody is told of what is still out

  uint64_t requests_out = 0;      // submitted by frontends and not completed
  uint64_t writes_active = 0;     // Write objects in use
  std::deque<Write*> log_wait;    // want extents
  bool log_retry = false;         // something was released that they may have waited for
  bool log_full = false;          // the oldest found no free slot
  std::deque<Write*> send_wait;   // want room towards the peer, or the end of kPrepared
  std::deque<Write*> gate_wait;   // done, but for a durable generation (R7)
  std::deque<Write*> epoch_wait;  // wait for an epoch at the peer, by epoch
  uint32_t gate_commits = 0;
  bool newly_primary = false;  // and has made no generation since
  // Slots whose peer may lack what completed while it was linked, though no generation says so; one
  // bit each.
  uint32_t unshared_slots = 0;
  std::deque<std::unique_ptr<Write>> write_pool;
  Write* free_writes = nullptr;
  LinkState link;
  std::deque<Io*> remote_queue;                   // reads that wait to be sent to the peer
  std::list<RemoteRead> remote_reads;             // ... that were sent, in part or whole
  std::map<uint64_t, RemoteFrame> remote_frames;  // sent and not answered, by sequence
  uint64_t remote_bytes = 0;                      // of them
  bool remote_answer = false;                     // a read's owner is being told what the peer said
  std::list<ServedRead> served_reads;

  struct Quiet {
    bool wait_requests;
    uint64_t deadline_us;
    Done done;
  };
  std::deque<Quiet> quiet;
  struct Drain {
    uint64_t upto;  // done when every write before this sequence is durable at the peer
    Done done;
  };
  std::deque<Drain> drains;
  uint64_t next_sweep_us = 0;
  bool sweeping = false;
  VolumeStatus counters;  // only its counters are used
};

struct Volume::Impl : VolumeImpl {
  using VolumeImpl::VolumeImpl;
};

}  // namespace tidemark
