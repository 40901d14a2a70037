// A simulated machine: its disks, its identity and its chance. It outlives its processes: what a
// crash leaves is what is on the disks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/attach.h"
#include "core/layout.h"
#include "disk.h"
#include "late_writes.h"
#include "random.h"
#include "requests.h"

namespace tidemark::sim {

class Process;

struct MachineOptions {
  std::string name;
  uint64_t seed = 0;
  Geometry geometry;
  uint32_t block_bytes = 512;
  bool external = false;
  bool volatile_cache = true;
};

// One in so many; 0 = never.
struct Faults {
  uint64_t write_error_one_in[2] = {};  // by IoTarget
  uint64_t read_error_one_in[2] = {};
  uint64_t flush_error_one_in[2] = {};
  uint64_t no_buffer_one_in = 0;
  bool hang = false;
  size_t send_ring_bytes = 0;
  size_t receive_ring_bytes = 0;
};

// The metadata area of a machine, blocking, for create, attach and dump. `faults` null: none.
class MetadataArea : public MetadataIo {
 public:
  // `data`: the backing disk, where the area is on another; null: it is not flushed apart.
  MetadataArea(Disk& disk, uint64_t base, Random* random = nullptr, const Faults* faults = nullptr,
               Disk* data = nullptr)
      : disk_(disk), base_(base), random_(random), faults_(faults), data_(data) {}
  int read(uint64_t offset, void* buffer, size_t bytes) override;
  int write(uint64_t offset, const void* buffer, size_t bytes) override;
  int flush() override;
  int flush_data() override;

 private:
  int flush_disk(Disk& disk, IoTarget target);

  Disk& disk_;
  uint64_t base_;
  Random* random_;
  const Faults* faults_;
  Disk* data_;
};

enum class CrashKind : uint8_t { kProcess, kPower };
enum class RotKind : uint8_t { kMap, kLog, kSuperblock };

class Machine {
 public:
  explicit Machine(MachineOptions options);  // throws std::runtime_error
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  const MachineOptions& options() const { return options_; }
  const Layout& layout() const { return layout_; }
  const Uuid& node_id() const { return node_id_; }
  uint64_t volume_bytes() const { return layout_.geometry.volume_bytes; }
  uint64_t volume_pages() const { return (volume_bytes() + kPageBytes - 1) / kPageBytes; }
  Disk& data() { return data_; }
  const Disk& data() const { return data_; }
  Disk& meta() { return options_.external ? meta_ : data_; }
  const Disk& meta() const { return options_.external ? meta_ : data_; }
  uint64_t meta_offset() const { return meta_offset_; }  // bytes, on meta()

  // On the machine's own or a clone's disk with the metadata; `faults` null: none.
  void attach(Disk& meta, Disk* data, Random* random, const Faults* faults,
              std::unique_ptr<Attachment>* out, MetadataError* error) const;

  std::string rot(RotKind kind);
  // The metadata as a newer program would have left them, all else being in order; or as they were.
  void claim_newer(bool newer);
  void replace_disk();
  std::string dump();
  // The generation that would be the current one after a power cut now; none without metadata.
  uint64_t durable_current() const;

  Random random;
  Faults faults;
  // The one life of its daemon, from open to its end. null: none.
  std::shared_ptr<Process> process;
  std::vector<Ask> unfinished;     // of the last one, until somebody takes them
  std::vector<Answered> answered;  // in its last turn, likewise
  LateWrites late;
  uint64_t next_request = 1;

  // The first thing that went wrong, for whoever calls next; it stays.
  void violate(const std::string& what);
  const std::string& violation() const { return violation_; }

 private:
  void create();
  uint64_t data_disk_bytes() const;

  MachineOptions options_;
  Layout layout_;
  uint64_t meta_offset_ = 0;
  Disk data_;
  Disk meta_;
  Uuid node_id_;
  std::string violation_;
};

}  // namespace tidemark::sim
