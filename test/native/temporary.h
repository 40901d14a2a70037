// A folder of its own for a test, removed with everything in it.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace tidemark {

class TemporaryFolder {
 public:
  static const char* usual() {
    const char* folder = std::getenv("TMPDIR");
    return folder == nullptr ? "/tmp" : folder;
  }
  explicit TemporaryFolder(const char* parent = usual())
      : path_(std::string(parent) + "/tidemark-unit-XXXXXX") {
    REQUIRE(mkdtemp(path_.data()) != nullptr);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string path(const std::string& name) const { return path_ + "/" + name; }
  // A sparse file.
  std::string file(const std::string& name, uint64_t bytes) const {
    const int fd = ::open(path(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    REQUIRE(ftruncate(fd, static_cast<off_t>(bytes)) == 0);
    ::close(fd);
    return path(name);
  }
  void put(const std::string& name, uint64_t offset, const std::string& data) const {
    const int fd = ::open(path(name).c_str(), O_WRONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    REQUIRE(pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset)) ==
            static_cast<ssize_t>(data.size()));
    ::close(fd);
  }
  std::string get(const std::string& name, uint64_t offset, size_t bytes) const {
    const int fd = ::open(path(name).c_str(), O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    std::string data(bytes, '\0');
    REQUIRE(pread(fd, data.data(), bytes, static_cast<off_t>(offset)) ==
            static_cast<ssize_t>(bytes));
    ::close(fd);
    return data;
  }

 private:
  std::string path_;
};

}  // namespace tidemark
