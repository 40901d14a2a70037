#include "engine/create.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "core/attach.h"
#include "engine/backing.h"
#include "engine/metadata_file.h"
#include "engine/metadata_place.h"

namespace tidemark {
namespace {

// A predecessor that was just stopped may need a moment; a daemon that runs stays.
constexpr uint64_t kLockTimeoutMs = 2000;

EngineError bad_options(const std::string& text) { return {"OPTIONS", 0, "", text}; }

EngineError system_error(const char* code, const char* call, const std::string& what) {
  const int number = errno;
  return {code, number, call, what + ": " + std::strerror(number)};
}

bool fill_random(void* out, size_t bytes) {
  return getrandom(out, bytes, 0) == static_cast<ssize_t>(bytes);
}

// A metadata file that this create made goes again when the create fails.
class FreshFile {
 public:
  ~FreshFile() {
    if (!path_.empty()) unlink(path_.c_str());
  }
  void keep() { path_.clear(); }

  // Makes the file unless there is something at `path`. Its name is durable with it.
  std::optional<EngineError> make(const std::string& path, uint64_t bytes) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST) return std::nullopt;
    if (fd < 0) return system_error("BACKING_OPEN", "open", "cannot make '" + path + "'");
    path_ = path;
    std::optional<EngineError> error;
    if (const int number = posix_fallocate(fd, 0, static_cast<off_t>(bytes)); number != 0) {
      errno = number;
      error = system_error("METADATA_IO", "fallocate",
                           "cannot give '" + path + "' " + std::to_string(bytes) + " bytes");
    } else if (fsync(fd) != 0) {
      error = system_error("METADATA_IO", "fsync", "cannot write '" + path + "'");
    }
    ::close(fd);
    if (error) return error;
    const size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    const int folder_fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_fd >= 0) {
      fsync(folder_fd);
      ::close(folder_fd);
    }
    return std::nullopt;
  }

 private:
  std::string path_;
};

std::optional<EngineError> check(const CreateOptions& options) {
  if (options.name.empty() || options.name.size() > 63) {
    return bad_options("the volume's name has " + std::to_string(options.name.size()) +
                       " bytes: out of range (1..63)");
  }
  if (options.metadata_path.empty() == (options.placement == Placement::kExternal)) {
    return bad_options("external metadata needs a path, and only external metadata has one");
  }
  if (options.peer_slots < 1 || options.peer_slots > kMaxPeerSlots) {
    return bad_options("the number of peer slots is " + std::to_string(options.peer_slots) +
                       ": out of range (1.." + std::to_string(kMaxPeerSlots) + ")");
  }
  return std::nullopt;
}

// Where everything goes, with the size that was asked for.
std::optional<EngineError> plan(const CreateOptions& options, const Backing& backing,
                                Split* split) {
  Geometry geometry;
  geometry.chunk_bytes = options.chunk_bytes;
  geometry.extent_bytes = options.extent_bytes;
  geometry.log_extents = options.log_extents;
  geometry.peer_slots = options.peer_slots;
  const std::string of = "'" + backing.path() + "': ";
  if (auto text = split_device(backing.device_bytes(), backing.block_bytes(), options.placement,
                               options.metadata_offset, geometry, split)) {
    return bad_options(of + *text);
  }
  if (options.size_bytes == 0) return std::nullopt;
  const uint64_t largest = split->layout.geometry.volume_bytes;
  if (options.size_bytes > largest || options.size_bytes % backing.block_bytes() != 0) {
    return bad_options(of + "the size is " + std::to_string(options.size_bytes) +
                       " bytes: out of range (.." + std::to_string(largest) +
                       ") or not a multiple of " + std::to_string(backing.block_bytes()));
  }
  geometry = split->layout.geometry;
  geometry.volume_bytes = options.size_bytes;
  if (auto text = check_geometry(geometry)) return bad_options(of + *text);
  split->layout = make_layout(geometry);
  // At the end the smaller area moves up; at the start the data stays where it is.
  if (options.placement == Placement::kEnd) {
    split->meta_offset = backing.device_bytes() / kBlockSize * kBlockSize - split->layout.bytes();
  }
  return std::nullopt;
}

bool is_ours(const SuperblockParse& parse) {
  return parse.error != SuperblockError::kBlank && parse.error != SuperblockError::kForeign;
}

SuperblockParse read_block(MetadataFile& file, uint64_t offset) {
  uint8_t block[kBlockSize] = {};
  file.read(offset, block, sizeof block);  // what cannot be read is blank
  return parse_superblock(std::span<const uint8_t, kBlockSize>(block));
}

// Refuses what carries something; with force only notes it.
std::optional<EngineError> check_signature(const Backing& device, uint64_t meta_offset, bool force,
                                           CreateReport* report) {
  int number = 0;
  std::optional<std::string> found = probe_signature(device.fd(), device.device_bytes(), &number);
  if (number != 0) {
    errno = -number;
    return system_error("METADATA_IO", "pread", "cannot read '" + device.path() + "'");
  }
  if (!found) {
    MetadataFile file(device, 0, device.device_bytes() / kBlockSize * kBlockSize);
    if (is_ours(read_block(file, meta_offset))) found = "Tidemark metadata";
  }
  if (!found) return std::nullopt;
  const std::string what = "'" + device.path() + "' carries: " + *found;
  if (!force) {
    return EngineError{"EXISTS", 0, "",
                       what +
                           "; nothing was written. With --force the metadata is written all the "
                           "same: what lies elsewhere stays, and is part of the volume"};
  }
  report->overwritten.push_back(what);
  return std::nullopt;
}

// An existing metadata file has to be ours, empty or zero, and large enough.
std::optional<EngineError> check_metadata_device(const Backing& device, uint64_t bytes,
                                                 bool force) {
  if (device.device_bytes() < bytes && (device.block_device() || device.device_bytes() > 0)) {
    if (device.block_device() || !force) {
      return bad_options("'" + device.path() + "' has " + std::to_string(device.device_bytes()) +
                         " bytes: the metadata needs " + std::to_string(bytes));
    }
  }
  if (force || device.device_bytes() == 0) return std::nullopt;
  MetadataFile file(device, 0, device.device_bytes());
  uint8_t block[kBlockSize] = {};
  const size_t size = std::min<uint64_t>(sizeof block, device.device_bytes());
  if (file.read(0, block, size) != 0) return std::nullopt;  // the writes will tell
  if (std::all_of(block, block + size, [](uint8_t byte) { return byte == 0; })) return std::nullopt;
  return EngineError{
      "EXISTS", 0, "",
      "'" + device.path() + "' is not empty; nothing was written. To overwrite it, use --force"};
}

// Zeroes by the filesystem or the disk itself, with the space allocated; false: they have to be
// written.
bool zero_natively(const Backing& device, uint64_t offset, uint64_t bytes) {
  const auto at = static_cast<off_t>(offset);
  const auto length = static_cast<off_t>(bytes);
  const int fd = device.fd();
  if (device.block_device()) {
    return fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, at, length) == 0;
  }
  if (fallocate(fd, FALLOC_FL_ZERO_RANGE, at, length) == 0) return true;
  // A hole alone could run out of space later, when the map is needed most.
  return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length) == 0 &&
         fallocate(fd, 0, at, length) == 0;
}

// Superblocks of an earlier life outside of the new area would be found by someone one day: both
// copies of what begins or ends the device.
void wipe_stale(const Backing& device, uint64_t meta_offset, uint64_t meta_bytes) {
  const uint64_t whole = device.device_bytes() / kBlockSize * kBlockSize;
  MetadataFile file(device, 0, whole);
  const uint8_t zeroes[kBlockSize] = {};
  const auto wipe = [&](uint64_t at) {
    const bool inside = at >= meta_offset && at < meta_offset + meta_bytes;
    if (!inside && is_ours(read_block(file, at))) file.write(at, zeroes, sizeof zeroes);
  };
  for (const uint64_t at : {uint64_t{0}, whole - kBlockSize}) {
    const SuperblockParse parse = read_block(file, at);
    if (parse.error == SuperblockError::kNone) {
      const uint64_t distance = make_layout(parse.superblock.geometry).bytes() - kBlockSize;
      wipe(parse.copy == 0 ? at + distance : at - distance);
    }
    wipe(at);
  }
}

// The log rings are written, so that a log write on the request's path finds its blocks in place;
// the much larger maps may be zeroes that the filesystem only knows about.
bool zero_areas(const Backing& device, const Split& split) {
  const Layout& layout = split.layout;
  if (!zero_natively(device, split.meta_offset, layout.bytes())) return false;
  MetadataFile file(device, split.meta_offset, layout.bytes());
  const std::unique_ptr<uint8_t[]> zeroes(new uint8_t[kBlockSize]());
  for (uint64_t block = 0; block < layout.map_first_block; ++block) {
    if (file.write(block * kBlockSize, zeroes.get(), kBlockSize) != 0) return false;
  }
  return file.flush() == 0;
}

}  // namespace

std::optional<EngineError> create_volume(const CreateOptions& options, CreateReport* report) {
  *report = {};
  if (auto error = check(options)) return error;
  EngineError error;
  const auto backing = Backing::open(options.backing_path, kLockTimeoutMs, &error);
  if (backing == nullptr) return error;
  Split split;
  if (auto wrong = plan(options, *backing, &split)) return wrong;
  const bool external = options.placement == Placement::kExternal;
  if (auto found =
          check_signature(*backing, external ? 0 : split.meta_offset, options.force, report)) {
    return found;
  }

  Superblock superblock;
  superblock.serial = 1;
  superblock.placement = options.placement;
  superblock.block_bytes = backing->block_bytes();
  superblock.device_bytes = backing->device_bytes();
  superblock.data_offset = split.data_offset;
  superblock.meta_offset = split.meta_offset;
  superblock.geometry = split.layout.geometry;
  superblock.created_unix_s = static_cast<uint64_t>(time(nullptr));
  std::memcpy(superblock.name, options.name.data(), options.name.size());
  if (!fill_random(&superblock.metadata_id, sizeof superblock.metadata_id) ||
      !fill_random(&superblock.node_id, sizeof superblock.node_id)) {
    return system_error("METADATA_IO", "getrandom", "cannot make an identity");
  }

  FreshFile fresh;
  std::unique_ptr<Backing> metadata;
  if (external) {
    if (auto failed = fresh.make(options.metadata_path, split.layout.bytes())) return failed;
    metadata = Backing::open(options.metadata_path, kLockTimeoutMs, &error);
    if (metadata == nullptr) return error;
    if (auto found = check_signature(*metadata, 0, options.force, report)) return found;
    if (auto wrong = check_metadata_device(*metadata, split.layout.bytes(), options.force)) {
      return wrong;
    }
  }
  const Backing& meta_device = metadata ? *metadata : *backing;

  // Checks end here, writing begins.
  wipe_stale(meta_device, split.meta_offset, split.layout.bytes());
  if (external) wipe_stale(*backing, 0, 0);
  const bool zeroed = zero_areas(meta_device, split);
  MetadataFile file(meta_device, split.meta_offset, split.layout.bytes());
  if (auto failed = create_metadata(file, superblock, split.layout, zeroed)) {
    return EngineError{failed->code, 0, "", "'" + meta_device.path() + "': " + failed->message};
  }
  fresh.keep();

  report->volume_bytes = superblock.geometry.volume_bytes;
  report->device_bytes = superblock.device_bytes;
  report->block_bytes = superblock.block_bytes;
  report->data_offset = split.data_offset;
  report->metadata_offset = split.meta_offset;
  report->metadata_bytes = split.layout.bytes();
  report->node_id = superblock.node_id;
  for (const Backing* device : {backing.get(), metadata.get()}) {
    if (device == nullptr || device->direct()) continue;
    report->warnings.push_back("'" + device->path() + "': " + device->direct_refused() +
                               "; buffered I/O will be used");
  }
  return std::nullopt;
}

}  // namespace tidemark
