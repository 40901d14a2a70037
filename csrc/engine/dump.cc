#include <cstdio>

#include "core/attach.h"
#include "engine/backing.h"
#include "engine/create.h"
#include "engine/metadata_file.h"
#include "engine/metadata_place.h"

namespace tidemark {
namespace {

std::string json_string(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace

std::optional<EngineError> dump_volume(const DumpOptions& options, std::string* json) {
  const bool external = options.placement == Placement::kExternal;
  if (options.metadata_path.empty() == external) {
    return EngineError{"OPTIONS", 0, "",
                       "external metadata needs a path, and only external metadata has one"};
  }
  EngineError error;
  const auto device =
      Backing::open_read_only(external ? options.metadata_path : options.backing_path, &error);
  if (device == nullptr) return error;
  MetadataPlace place;
  if (!find_metadata(*device, options.placement, options.metadata_offset, &place, &error)) {
    // Damaged beyond finding its extent, or another version's: what can still be read is shown.
    if (error.code != "METADATA_DAMAGED" && error.code != "METADATA_VERSION") return error;
    place.offset = options.placement == Placement::kOffset ? options.metadata_offset : 0;
    place.bytes = device->device_bytes() / kBlockSize * kBlockSize - place.offset;
    place.warnings.push_back(error.message);
  }
  MetadataFile file(*device, place.offset, place.bytes);
  std::string warnings;
  for (const std::string& warning : place.warnings) {
    warnings += (warnings.empty() ? "" : ", ") + json_string(warning);
  }
  *json = "{\"device\": " + json_string(device->path()) +
          ", \"placement\": " + json_string(placement_text(options.placement)) +
          ", \"device_bytes\": " + std::to_string(device->device_bytes()) +
          ", \"area_offset\": " + std::to_string(place.offset) +
          ", \"area_bytes\": " + std::to_string(place.bytes) +
          ", \"locked\": " + (device->locked() ? "true" : "false") + ", \"warnings\": [" +
          warnings + "], \"metadata\": " + dump_metadata(file, place.bytes) + "}";
  return std::nullopt;
}

}  // namespace tidemark
