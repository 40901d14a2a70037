#include "frontends/ublk_node.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <functional>

namespace tidemark {
namespace {

std::string read_file(const std::string& path) {
  std::string text;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  char buffer[4096];
  ssize_t count;
  while ((count = read(fd, buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<size_t>(count));
  }
  close(fd);
  return text;
}

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) {
    text.pop_back();
  }
  return text;
}

// Names in a folder, until `take` returns false.
void each_name(const std::string& folder, const std::function<bool(const char*)>& take) {
  DIR* directory = opendir(folder.c_str());
  if (directory == nullptr) return;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] == '.') continue;
    if (!take(entry->d_name)) break;
  }
  closedir(directory);
}

std::string block_name(uint32_t device_id) { return "ublkb" + std::to_string(device_id); }

std::vector<std::string_view> fields_of(std::string_view line) {
  std::vector<std::string_view> fields;
  while (!line.empty()) {
    const size_t end = std::min(line.find(' '), line.size());
    if (end > 0) fields.push_back(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return fields;
}

bool names_device_or_partition(std::string_view source, std::string_view path) {
  if (!source.starts_with(path)) return false;
  source.remove_prefix(path.size());
  return source.empty() || source.front() == 'p';
}

// "252:0" of the device and of its partitions.
std::vector<std::string> device_numbers(uint32_t device_id) {
  const std::string name = block_name(device_id);
  const std::string folder = "/sys/block/" + name;
  std::vector<std::string> numbers;
  const std::string whole = trimmed(read_file(folder + "/dev"));
  if (whole.empty()) return numbers;
  numbers.push_back(whole);
  each_name(folder, [&](const char* entry) {
    if (std::string_view(entry).starts_with(name)) {
      numbers.push_back(trimmed(read_file(folder + "/" + entry + "/dev")));
    }
    return true;
  });
  return numbers;
}

bool all_digits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

std::string ublk_block_path(uint32_t device_id) { return "/dev/" + block_name(device_id); }

std::string ublk_char_path(uint32_t device_id) { return "/dev/ublkc" + std::to_string(device_id); }

std::vector<uint32_t> ublk_device_ids() {
  constexpr std::string_view kPrefix = "ublkc";
  std::vector<uint32_t> ids;
  each_name("/sys/class/ublk-char", [&](const char* entry) {
    std::string_view name(entry);
    if (!name.starts_with(kPrefix)) return true;
    name.remove_prefix(kPrefix.size());
    uint32_t id = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), id);
    if (parsed.ec == std::errc() && parsed.ptr == name.data() + name.size()) ids.push_back(id);
    return true;
  });
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::vector<std::string> ublk_mounts_in(std::string_view mountinfo,
                                        const std::vector<std::string>& numbers,
                                        std::string_view path) {
  std::vector<std::string> mounts;
  while (!mountinfo.empty()) {
    const size_t end = std::min(mountinfo.find('\n'), mountinfo.size());
    // id parent major:minor root mount-point options [optional...] - type source options
    const auto fields = fields_of(mountinfo.substr(0, end));
    mountinfo.remove_prefix(std::min(end + 1, mountinfo.size()));
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (fields.size() < 6 || fields.end() - dash < 3) continue;
    const bool by_number = std::find(numbers.begin(), numbers.end(), fields[2]) != numbers.end();
    if (by_number || names_device_or_partition(dash[2], path)) mounts.emplace_back(fields[4]);
  }
  return mounts;
}

std::vector<std::string> ublk_mounts(uint32_t device_id) {
  const std::vector<std::string> numbers = device_numbers(device_id);
  if (numbers.empty()) return {};
  return ublk_mounts_in(read_file("/proc/self/mountinfo"), numbers, ublk_block_path(device_id));
}

std::string ublk_mounts_and_holders(uint32_t device_id) {
  const std::vector<std::string> mounts = ublk_mounts(device_id);
  if (!mounts.empty()) return "mounted on " + mounts.front();
  std::string holder;
  const auto first_holder = [&](const std::string& folder) {
    each_name(folder + "/holders", [&](const char* entry) {
      holder = entry;
      return false;
    });
  };
  const std::string name = block_name(device_id);
  const std::string folder = "/sys/block/" + name;
  first_holder(folder);
  each_name(folder, [&](const char* entry) {
    if (holder.empty() && std::string_view(entry).starts_with(name)) {
      first_holder(folder + "/" + entry);
    }
    return holder.empty();
  });
  return holder.empty() ? std::string() : "held by " + holder;
}

bool ublk_served(uint32_t device_id) {
  const int fd = open(ublk_char_path(device_id).c_str(), O_RDWR | O_CLOEXEC);
  if (fd >= 0) close(fd);
  return fd < 0 && errno == EBUSY;
}

bool ublk_process_exists(int process_id) {
  return process_id > 0 && (kill(process_id, 0) == 0 || errno != ESRCH);
}

std::string ublk_openers(uint32_t device_id) {
  const std::vector<std::string> numbers = device_numbers(device_id);
  if (numbers.empty()) return {};
  const std::string self = std::to_string(getpid());
  std::string found;
  each_name("/proc", [&](const char* process) {
    if (!all_digits(process) || self == process) return true;
    const std::string folder = std::string("/proc/") + process + "/fd";
    each_name(folder, [&](const char* entry) {
      const std::string link = folder + "/" + entry;
      char target[256];
      const ssize_t length = readlink(link.c_str(), target, sizeof target);
      // Only what looks like a device is looked at: stat of other files may wait for their servers.
      if (length <= 0 ||
          !std::string_view(target, static_cast<size_t>(length)).starts_with("/dev/")) {
        return true;
      }
      struct stat status;
      if (stat(link.c_str(), &status) != 0 || !S_ISBLK(status.st_mode)) return true;
      const std::string number =
          std::to_string(major(status.st_rdev)) + ":" + std::to_string(minor(status.st_rdev));
      if (std::find(numbers.begin(), numbers.end(), number) == numbers.end()) return true;
      const std::string name = trimmed(read_file(std::string("/proc/") + process + "/comm"));
      found = "open by " + name + " (process " + process + ")";
      return false;
    });
    return found.empty();
  });
  return found;
}

}  // namespace tidemark
