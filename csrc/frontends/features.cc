#include "frontends/features.h"

#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <thread>
#include <utility>
#include <vector>

#include "core/json.h"
#include "engine/ring.h"
#include "frontends/ublk_control.h"
#include "frontends/ublk_params.h"
#include "vendor/linux/io_uring.h"

namespace tidemark {
namespace {

const char* boolean(bool value) { return value ? "true" : "false"; }

std::string list(const std::vector<std::string>& items) {
  std::string out = "[";
  for (const std::string& item : items) out += (out.size() > 1 ? "," : "") + Json::quoted(item);
  return out + "]";
}

std::string object(std::initializer_list<std::pair<const char*, std::string>> members) {
  std::string out = "{";
  for (const auto& [name, value] : members) {
    out += (out.size() > 1 ? "," : "") + Json::quoted(name) + ":" + value;
  }
  return out + "}";
}

std::string kernel() {
  utsname name = {};
  uname(&name);
  return object({{"release", Json::quoted(name.release)}, {"machine", Json::quoted(name.machine)}});
}

struct Operation {
  uint8_t code;
  const char* name;
};

// What the engine and the frontends submit.
constexpr Operation kOperations[] = {
    {IORING_OP_READ, "READ"},           {IORING_OP_WRITE, "WRITE"},
    {IORING_OP_READV, "READV"},         {IORING_OP_WRITEV, "WRITEV"},
    {IORING_OP_FSYNC, "FSYNC"},         {IORING_OP_FALLOCATE, "FALLOCATE"},
    {IORING_OP_ACCEPT, "ACCEPT"},       {IORING_OP_RECV, "RECV"},
    {IORING_OP_SEND, "SEND"},           {IORING_OP_SENDMSG, "SENDMSG"},
    {IORING_OP_OPENAT, "OPENAT"},       {IORING_OP_ASYNC_CANCEL, "ASYNC_CANCEL"},
    {IORING_OP_URING_CMD, "URING_CMD"},
};

struct IoUring {
  bool usable = false;
  std::string problem;
  std::vector<std::string> missing;
};

IoUring probe_io_uring() {
  IoUring found;
  Ring ring;
  if (const int error = ring.open({.entries = 4}); error != 0) {
    found.problem = std::string("io_uring cannot be set up: ") + std::strerror(-error);
    if (error == -EPERM || error == -EACCES) {
      found.problem +=
          "; see the sysctl kernel.io_uring_disabled and seccomp filters of containers";
    } else if (error == -ENOSYS) {
      found.problem += "; Linux 5.11 or newer is needed";
    }
    return found;
  }
  constexpr unsigned kCount = 256;
  alignas(io_uring_probe)
      uint8_t memory[sizeof(io_uring_probe) + kCount * sizeof(io_uring_probe_op)] = {};
  if (syscall(__NR_io_uring_register, ring.fd(), IORING_REGISTER_PROBE, memory, kCount) != 0) {
    found.problem = std::string("io_uring's operations cannot be probed: ") + std::strerror(errno);
    return found;
  }
  io_uring_probe probe;
  std::memcpy(&probe, memory, sizeof probe);
  for (const Operation& operation : kOperations) {
    io_uring_probe_op entry = {};
    if (operation.code <= probe.last_op) {
      std::memcpy(&entry, memory + sizeof probe + operation.code * sizeof entry, sizeof entry);
    }
    if ((entry.flags & IO_URING_OP_SUPPORTED) == 0) found.missing.emplace_back(operation.name);
  }
  // Without URING_CMD there is no ublk; the rest works.
  found.usable =
      found.missing.empty() || (found.missing.size() == 1 && found.missing.front() == "URING_CMD");
  if (!found.usable)
    found.problem = "this kernel's io_uring lacks operations; a newer one is needed";
  return found;
}

struct Ublk {
  bool control_device = false;
  bool usable = false;
  bool known = false;  // the driver told its features
  uint64_t features = 0;
  std::string problem;
};

Ublk probe_ublk() {
  Ublk found;
  found.control_device = access(kUblkControlPath, F_OK) == 0;
  const std::string path = kUblkControlPath;
  UblkControl control;
  const char* failed_call = "";
  int error = control.open(&failed_call);
  if (error == -ENOENT || error == -ENODEV || error == -ENXIO) {
    found.problem = path +
                    " is missing: load the driver (modprobe ublk_drv; Linux 6.0 or newer with "
                    "CONFIG_BLK_DEV_UBLK), or use the NBD frontend";
  } else if (error == -EACCES || error == -EPERM) {
    found.problem = path + " may not be opened by this user: run as root, or use the NBD frontend";
  } else if (error != 0) {
    found.problem = std::string(failed_call) + " for " + path + ": " + std::strerror(-error);
  }
  if (error != 0) return found;
  error = control.get_features(&found.features, UblkClock::now() + std::chrono::seconds(2));
  if (error != 0) {
    found.problem = std::string("the driver does not tell its features (") + std::strerror(-error) +
                    "): it is older than Linux 6.5; use a newer kernel, or the NBD frontend";
    return found;
  }
  found.known = true;
  found.usable = true;
  for (const UblkFeature& feature : ublk_features()) {
    if (feature.required && (found.features & feature.bit) == 0) {
      found.usable = false;
      found.problem = std::string("the driver lacks ") + feature.name + ": " + feature.without;
    }
  }
  if (found.usable && geteuid() != 0) {
    found.problem = "the driver is there; making a device takes root (CAP_SYS_ADMIN)";
  }
  return found;
}

std::string feature_names(uint64_t features) {
  std::vector<std::string> names;
  for (const UblkFeature& feature : ublk_features()) {
    if ((features & feature.bit) != 0) names.emplace_back(feature.name);
    features &= ~feature.bit;
  }
  for (int bit = 0; bit < 64; ++bit) {
    if ((features >> bit & 1) != 0) names.push_back("BIT_" + std::to_string(bit));
  }
  return list(names);
}

std::string feature_uses(const Ublk& ublk) {
  std::string out = "[";
  for (const UblkFeature& feature : ublk_features()) {
    if (!feature.used) continue;
    const bool offered = ublk.known && (ublk.features & feature.bit) != 0;
    if (out.size() > 1) out += ",";
    out += object({{"name", Json::quoted(feature.name)},
                   {"offered", ublk.known ? boolean(offered) : "null"},
                   {"required", boolean(feature.required)},
                   {"without", Json::quoted(feature.without)}});
  }
  return out + "]";
}

}  // namespace

std::string features_json() {
  IoUring io_uring;
  Ublk ublk;
  // On a thread of its own: rings leave workers behind on the thread that used them.
  std::thread([&] {
    io_uring = probe_io_uring();
    ublk = probe_ublk();
  }).join();
  const std::string io_uring_text = object({{"usable", boolean(io_uring.usable)},
                                            {"problem", Json::quoted(io_uring.problem)},
                                            {"missing_operations", list(io_uring.missing)}});
  const std::string ublk_text =
      object({{"usable", boolean(ublk.usable && io_uring.usable)},
              {"control_device", boolean(ublk.control_device)},
              {"problem", Json::quoted(ublk.problem)},
              {"features", ublk.known ? feature_names(ublk.features) : "null"},
              {"uses", feature_uses(ublk)}});
  return object(
      {{"kernel", kernel()},
       {"io_uring", io_uring_text},
       {"ublk", ublk_text},
       {"nbd", object({{"usable", boolean(io_uring.usable)},
                       {"problem", Json::quoted(io_uring.usable ? "" : io_uring.problem)}})}});
}

}  // namespace tidemark
