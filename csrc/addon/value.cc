#include "addon/value.h"

#include <initializer_list>

#include "addon/words.h"
#include "core/hex.h"

namespace tidemark::addon {
namespace {

// -1 stands for none.
double slot_number(uint32_t slot) { return slot == kNoSlot ? -1 : static_cast<double>(slot); }

class ObjectMaker {
 public:
  explicit ObjectMaker(Napi::Env env) : env_(env), object_(Napi::Object::New(env)) {}
  void number(const char* name, double value) { object_.Set(name, Napi::Number::New(env_, value)); }
  void count(const char* name, uint64_t value) { number(name, static_cast<double>(value)); }
  void flag(const char* name, bool value) { object_.Set(name, Napi::Boolean::New(env_, value)); }
  void text(const char* name, const std::string& value) {
    object_.Set(name, Napi::String::New(env_, value));
  }
  void value(const char* name, Napi::Value value) { object_.Set(name, value); }
  Napi::Object object() const { return object_; }

 private:
  Napi::Env env_;
  Napi::Object object_;
};

Napi::Array make_texts(Napi::Env env, const std::vector<std::string>& texts) {
  Napi::Array array = Napi::Array::New(env, texts.size());
  for (uint32_t i = 0; i < texts.size(); ++i) array.Set(i, Napi::String::New(env, texts[i]));
  return array;
}

Napi::Array make_peers(Napi::Env env, const VolumeStatus& status) {
  Napi::Array peers = Napi::Array::New(env);
  uint32_t used = 0;
  for (uint32_t slot = 0; slot < status.peers.size(); ++slot) {
    const PeerStatus& peer = status.peers[slot];
    if (!peer.in_use) continue;
    ObjectMaker maker(env);
    maker.count("slot", slot);
    maker.text("nodeId", hex(peer.node_id));
    maker.text("name", peer.name);
    maker.count("flags", peer.flags);
    maker.text("bitmapGeneration", hex(peer.bitmap_generation));
    maker.count("dirtyChunks", peer.dirty_chunks);
    maker.count("dirtyBytes", peer.dirty_bytes);
    peers.Set(used++, maker.object());
  }
  return peers;
}

Napi::Value make_resync(Napi::Env env, const ResyncStatus& resync) {
  if (!resync.active) return env.Null();
  ObjectMaker maker(env);
  maker.flag("target", resync.target);
  maker.count("bytesDone", resync.bytes_done);
  maker.count("bytesTotal", resync.bytes_total);
  maker.count("startedUs", resync.started_us);
  maker.count("chunksSent", resync.chunks_sent);
  maker.count("unreadableChunks", resync.unreadable_chunks);
  return maker.object();
}

Napi::Object make_thread(Napi::Env env, const ThreadStatus& thread) {
  ObjectMaker maker(env);
  maker.count("wakeups", thread.wakeups);
  maker.count("requestBatches", thread.request_batches);
  maker.count("linkSends", thread.link_sends);
  maker.count("linkReceives", thread.link_receives);
  return maker.object();
}

}  // namespace

Napi::Object make_attach_report(Napi::Env env, const AttachReport& report) {
  ObjectMaker maker(env);
  maker.count("volumeBytes", report.volume_bytes);
  maker.count("blockBytes", report.block_bytes);
  maker.flag("directIo", report.direct_io);
  maker.flag("crashed", report.crashed);
  maker.flag("crashedPrimary", report.crashed_primary);
  maker.count("replayedExtents", report.replayed_extents);
  maker.count("replayedChunks", report.replayed_chunks);
  maker.value("warnings", make_texts(env, report.warnings));
  return maker.object();
}

Napi::Object make_status(Napi::Env env, const VolumeStatus& status, const std::string& device) {
  ObjectMaker maker(env);
  maker.count("nowUs", status.now_us);
  maker.count("ageUs", status.age_us);
  maker.text("role", text_of(status.role, kRoleWords));
  maker.text("disk", text_of(status.disk, kDiskWords));
  maker.text("connection", text_of(status.connection, kConnectionWords));
  maker.number("linkSlot", slot_number(status.link_slot));
  maker.text("peerRole", text_of(status.peer_role, kRoleWords));
  maker.text("peerDisk", text_of(status.peer_disk, kDiskWords));
  maker.text("protocol", text_of(status.protocol, kProtocolWords));
  maker.count("volumeBytes", status.volume_bytes);
  maker.count("chunkBytes", status.chunk_bytes);
  maker.count("extentBytes", status.extent_bytes);
  maker.count("logExtents", status.log_extents);
  maker.count("logHot", status.log_hot);
  maker.count("logTransactions", status.log_transactions);
  maker.text("current", hex(status.current));
  maker.count("flags", status.flags);
  maker.count("staleMapBlocks", status.stale_map_blocks);
  maker.flag("suspended", status.suspended);
  maker.text("suspendReason", status.suspend_reason);
  maker.text("diskReason", status.disk_reason);
  maker.count("requestsInFlight", status.requests_in_flight);
  maker.count("inFlightWrites", status.in_flight_writes);
  maker.count("inFlightBytes", status.in_flight_bytes);
  maker.count("reads", status.reads);
  maker.count("writes", status.writes);
  maker.count("flushes", status.flushes);
  maker.count("discards", status.discards);
  maker.count("readBytes", status.read_bytes);
  maker.count("writtenBytes", status.written_bytes);
  maker.count("diskErrors", status.disk_errors);
  maker.count("remoteReads", status.remote_reads);
  maker.count("sentBytes", status.sent_bytes);
  maker.count("receivedBytes", status.received_bytes);
  maker.count("resyncSentBytes", status.resync_sent_bytes);
  maker.count("resyncReceivedBytes", status.resync_received_bytes);
  maker.count("resyncWireBytes", status.resync_wire_bytes);
  maker.count("markedByReplayChunks", status.marked_by_replay_chunks);
  maker.value("peers", make_peers(env, status));
  maker.value("resync", make_resync(env, status.resync));
  maker.value("thread", make_thread(env, status.thread));
  maker.text("device", device);
  return maker.object();
}

Napi::Object make_handshake_state(Napi::Env env, const HandshakeState& state) {
  ObjectMaker maker(env);
  maker.text("serial", hex(state.serial));
  maker.flag("idle", state.idle);
  maker.text("role", text_of(state.role, kRoleWords));
  maker.text("disk", text_of(state.disk, kDiskWords));
  maker.count("volumeBytes", state.volume_bytes);
  maker.count("chunkBytes", state.chunk_bytes);
  maker.text("nodeId", hex(state.node_id));
  maker.text("current", hex(state.current));
  maker.text("bitmap", hex(state.bitmap));
  std::vector<std::string> history;
  for (uint64_t generation : state.history) history.push_back(hex(generation));
  maker.value("history", make_texts(env, history));
  maker.count("flags", state.flags);
  maker.number("slot", slot_number(state.slot));
  maker.count("slotFlags", state.slot_flags);
  maker.count("dirtyChunks", state.dirty_chunks);
  return maker.object();
}

Napi::Array make_events(Napi::Env env, const std::vector<Event>& events) {
  Napi::Array array = Napi::Array::New(env, events.size());
  for (uint32_t i = 0; i < events.size(); ++i) {
    ObjectMaker maker(env);
    maker.text("kind", text_of(events[i].kind, kEventWords));
    maker.text("text", events[i].text);
    array.Set(i, maker.object());
  }
  return array;
}

Napi::Object make_create_report(Napi::Env env, const CreateReport& report) {
  ObjectMaker maker(env);
  maker.count("volumeBytes", report.volume_bytes);
  maker.count("metadataBytes", report.metadata_bytes);
  maker.count("dataOffset", report.data_offset);
  maker.count("metadataOffset", report.metadata_offset);
  maker.text("nodeId", hex(report.node_id));
  maker.value("overwritten", make_texts(env, report.overwritten));
  maker.value("warnings", make_texts(env, report.warnings));
  return maker.object();
}

}  // namespace tidemark::addon
