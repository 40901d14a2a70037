#include "addon/options.h"

#include <climits>

#include "addon/words.h"

namespace tidemark::addon {
namespace {

constexpr size_t kNameBytesMax = 63;          // Superblock::name
constexpr size_t kPeerNameBytesMax = 255;     // cut to 31 when stored
constexpr size_t kSocketPathBytesMax = 107;   // sun_path without its NUL
constexpr size_t kExportNameBytesMax = 4096;  // the NBD protocol's bound for strings
constexpr int64_t kOffsetMax = static_cast<int64_t>(kIntegerMax);
constexpr int64_t kCpusMax = 1024;  // CPU_SETSIZE
constexpr int64_t kLockTimeoutMsMax = 600'000;
constexpr int64_t kWindowWritesMax = 65'536;
constexpr int64_t kWindowBytesMin = 4096;
constexpr int64_t kWindowBytesMax = int64_t{16} << 30;
constexpr int64_t kIntervalMsMax = 3'600'000;
constexpr int64_t kFlushIntervalMsMin = 10;
constexpr int64_t kPeerTimeoutMsMin = 100;
constexpr int64_t kPingIntervalMsMin = 10;
constexpr int64_t kResyncRequestsMax = 1024;
constexpr int64_t kNbdConnectionsMax = 1024;
constexpr int64_t kQueueDepthMax = 4096;           // UBLK_MAX_QUEUE_DEPTH
constexpr int64_t kUblkDeviceMax = (1 << 20) - 1;  // minor numbers
constexpr int64_t kMaxIoBytesMin = 4096;
constexpr int64_t kMaxIoBytesMax = 1 << 20;
constexpr uint64_t kUsPerMs = 1000;

// Where the backing disk and its metadata are; the same in open, create and dump.
struct Place {
  std::string backing;
  std::string metadata;
  Placement placement = Placement::kEnd;
  uint64_t offset = 0;
};

Place read_place(ArgumentReader& reader, const Argument& options) {
  Place place;
  place.backing = reader.path(reader.property(options, "backing"));
  const Argument metadata = reader.property(options, "metadata");
  const Argument placement = reader.property(options, "placement");
  const Argument offset = reader.property(options, "metadataOffset");
  if (!metadata.absent()) {
    place.metadata = reader.path(metadata);
    place.placement = Placement::kExternal;
  }
  if (!placement.absent()) place.placement = reader.word(placement, kPlacementWords);
  if (!offset.absent()) {
    place.offset = static_cast<uint64_t>(reader.integer(offset, 0, kOffsetMax));
    if (place.offset % kBlockSize != 0) reader.range_failure(offset, "a multiple of 4096");
  }
  if (reader.failed()) return place;
  if (metadata.absent() && place.placement == Placement::kExternal) {
    reader.type_failure(metadata, "the path of the metadata, because placement is 'external'");
  } else if (!metadata.absent() && place.placement != Placement::kExternal) {
    reader.range_failure(placement, "'external' or nothing beside a metadata path");
  } else if (offset.absent() && place.placement == Placement::kOffset) {
    reader.type_failure(offset, "the metadata's offset in bytes, because placement is 'offset'");
  } else if (!offset.absent() && place.placement != Placement::kOffset) {
    reader.range_failure(placement, "'offset' beside a metadataOffset");
  }
  return place;
}

std::vector<int> read_affinity(ArgumentReader& reader, const Argument& affinity) {
  std::vector<int> cpus;
  if (affinity.absent()) return cpus;
  const uint32_t count = reader.array_length(affinity, kCpusMax);
  for (uint32_t i = 0; i < count && !reader.failed(); ++i) {
    cpus.push_back(static_cast<int>(reader.integer(reader.element(affinity, i), 0, kCpusMax - 1)));
  }
  return cpus;
}

uint32_t read_power_of_two(ArgumentReader& reader, const Argument& argument, int64_t min,
                           int64_t max) {
  const int64_t value = reader.integer(argument, min, max);
  if ((value & (value - 1)) != 0) {
    reader.range_failure(
        argument, "a power of two from " + std::to_string(min) + " to " + std::to_string(max));
  }
  return static_cast<uint32_t>(value);
}

void read_milliseconds(ArgumentReader& reader, const Argument& argument, int64_t min,
                       uint64_t* out_us) {
  if (argument.absent()) return;
  *out_us = static_cast<uint64_t>(reader.integer(argument, min, kIntervalMsMax)) * kUsPerMs;
}

template <typename Number>
void read_integer(ArgumentReader& reader, const Argument& argument, int64_t min, int64_t max,
                  Number* out) {
  if (!argument.absent()) *out = static_cast<Number>(reader.integer(argument, min, max));
}

void read_flag(ArgumentReader& reader, const Argument& argument, bool* out) {
  if (!argument.absent()) *out = reader.boolean(argument);
}

}  // namespace

OpenOptions read_open_options(ArgumentReader& reader, const Argument& options) {
  OpenOptions result;
  EngineOptions& engine = result.engine;
  engine.name = reader.text(reader.property(options, "name"), 1, kNameBytesMax);
  const Place place = read_place(reader, options);
  engine.backing_path = place.backing;
  engine.metadata_path = place.metadata;
  engine.placement = place.placement;
  engine.metadata_offset = place.offset;
  engine.affinity = read_affinity(reader, reader.property(options, "affinity"));
  read_integer(reader, reader.property(options, "lockTimeoutMs"), 0, kLockTimeoutMsMax,
               &engine.lock_timeout_ms);
  read_flag(reader, reader.property(options, "suspended"), &result.suspended);
  return result;
}

DumpOptions read_dump_options(ArgumentReader& reader, const Argument& options) {
  const Place place = read_place(reader, options);
  return {place.backing, place.placement, place.offset, place.metadata};
}

CreateOptions read_create_options(ArgumentReader& reader, const Argument& options) {
  CreateOptions result;
  const Place place = read_place(reader, options);
  result.backing_path = place.backing;
  result.metadata_path = place.metadata;
  result.placement = place.placement;
  result.metadata_offset = place.offset;
  result.name = reader.text(reader.property(options, "name"), 1, kNameBytesMax);
  const Argument chunk = reader.property(options, "chunkBytes");
  if (!chunk.absent()) {
    result.chunk_bytes = read_power_of_two(reader, chunk, kChunkBytesMin, kChunkBytesMax);
  }
  const Argument extent = reader.property(options, "extentBytes");
  if (!extent.absent()) {
    result.extent_bytes = read_power_of_two(reader, extent, kExtentBytesMin, kExtentBytesMax);
  }
  if (!reader.failed() && result.extent_bytes < result.chunk_bytes) {
    reader.range_failure(extent, "at least chunkBytes, " + std::to_string(result.chunk_bytes));
  }
  read_integer(reader, reader.property(options, "logExtents"), kExtentsMin, kExtentsMax,
               &result.log_extents);
  read_flag(reader, reader.property(options, "force"), &result.force);
  return result;
}

void read_limits(ArgumentReader& reader, const Argument& options, Limits* limits) {
  const Argument on_io_error = reader.property(options, "onIoError");
  if (!on_io_error.absent()) limits->on_io_error = reader.word(on_io_error, kOnIoErrorWords);
  read_integer(reader, reader.property(options, "windowWrites"), 1, kWindowWritesMax,
               &limits->window_writes);
  read_integer(reader, reader.property(options, "windowBytes"), kWindowBytesMin, kWindowBytesMax,
               &limits->window_bytes);
  read_milliseconds(reader, reader.property(options, "flushIntervalMs"), kFlushIntervalMsMin,
                    &limits->flush_interval_us);
  read_milliseconds(reader, reader.property(options, "peerTimeoutMs"), kPeerTimeoutMsMin,
                    &limits->peer_timeout_us);
  read_milliseconds(reader, reader.property(options, "pingIntervalMs"), kPingIntervalMsMin,
                    &limits->ping_interval_us);
  read_integer(reader, reader.property(options, "resyncRequests"), 1, kResyncRequestsMax,
               &limits->resync_requests);
}

LinkParams read_link_params(ArgumentReader& reader, const Argument& params) {
  LinkParams result;
  result.serial = reader.generation(reader.property(params, "serial"));
  const Argument peer_id = reader.property(params, "peerId");
  result.peer_id = reader.uuid(peer_id);
  if (result.peer_id.is_zero()) reader.range_failure(peer_id, "an identity, not all zeroes");
  result.peer_name = reader.text(reader.property(params, "peerName"), 1, kPeerNameBytesMax);
  result.incarnation =
      static_cast<uint32_t>(reader.integer(reader.property(params, "incarnation"), 1, UINT32_MAX));
  result.protocol = reader.word(reader.property(params, "protocol"), kProtocolWords);
  result.side = reader.word(reader.property(params, "side"), kSideWords);
  result.full = reader.boolean(reader.property(params, "full"));
  result.sync_generation = reader.generation(reader.property(params, "syncGeneration"));
  result.peer_current = reader.generation(reader.property(params, "peerCurrent"));
  result.peer_bitmap = reader.generation(reader.property(params, "peerBitmap"));
  const Argument history = reader.property(params, "peerHistory");
  const uint32_t count = reader.array_length(history, kHistory);
  for (uint32_t i = 0; i < count && !reader.failed(); ++i) {
    result.peer_history[i] = reader.generation(reader.element(history, i));
  }
  result.peer_flags =
      static_cast<uint32_t>(reader.integer(reader.property(params, "peerFlags"), 0, UINT32_MAX));
  result.peer_role = reader.word(reader.property(params, "peerRole"), kRoleWords);
  result.peer_disk = reader.word(reader.property(params, "peerDisk"), kDiskWords);
  return result;
}

NbdOptions read_nbd_options(ArgumentReader& reader, const Argument& options) {
  NbdOptions result;
  const Argument socket_path = reader.property(options, "socketPath");
  const Argument host = reader.property(options, "host");
  const Argument port = reader.property(options, "port");
  if (!socket_path.absent()) {
    result.socket_path = reader.text(socket_path, 1, kSocketPathBytesMax);
    if (result.socket_path.find('\0') != std::string::npos) {
      reader.range_failure(socket_path, "a path without a NUL byte");
    }
    if (!port.absent()) reader.range_failure(port, "nothing beside a socketPath");
    if (!host.absent()) reader.range_failure(host, "nothing beside a socketPath");
  } else {
    if (!host.absent()) result.host = reader.text(host, 1, kPeerNameBytesMax);
    result.port = static_cast<uint16_t>(reader.integer(port, 0, UINT16_MAX));
  }
  result.export_name = reader.text(reader.property(options, "exportName"), 0, kExportNameBytesMax);
  read_integer(reader, reader.property(options, "maxConnections"), 1, kNbdConnectionsMax,
               &result.max_connections);
  read_integer(reader, reader.property(options, "queueDepth"), 1, kQueueDepthMax,
               &result.queue_depth);
  return result;
}

UblkOptions read_ublk_options(ArgumentReader& reader, const Argument& options) {
  UblkOptions result;
  const Argument device = reader.property(options, "deviceId");
  result.device_id = static_cast<int>(reader.integer(device, -1, kUblkDeviceMax));
  read_integer(reader, reader.property(options, "queueDepth"), 1, kQueueDepthMax,
               &result.queue_depth);
  const Argument max_io = reader.property(options, "maxIoBytes");
  read_integer(reader, max_io, kMaxIoBytesMin, kMaxIoBytesMax, &result.max_io_bytes);
  if (result.max_io_bytes % kBlockSize != 0) reader.range_failure(max_io, "a multiple of 4096");
  read_flag(reader, reader.property(options, "recover"), &result.recover);
  if (!reader.failed() && result.recover && result.device_id < 0) {
    reader.range_failure(device, "the number of the device to recover, 0 or more");
  }
  return result;
}

}  // namespace tidemark::addon
