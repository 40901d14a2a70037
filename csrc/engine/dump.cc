#include "core/attach.h"
#include "core/json.h"
#include "engine/backing.h"
#include "engine/create.h"
#include "engine/metadata_file.h"
#include "engine/metadata_place.h"

namespace tidemark {
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
  Json warnings;
  for (const std::string& warning : place.warnings) warnings.item(Json::quoted(warning));
  Json all;
  all.text("device", device->path());
  all.text("placement", placement_text(options.placement));
  all.number("device_bytes", device->device_bytes());
  all.number("area_offset", place.offset);
  all.number("area_bytes", place.bytes);
  all.flag("locked", device->locked());
  all.raw("warnings", warnings.array());
  all.raw("metadata", dump_metadata(file, place.bytes));
  *json = all.object();
  return std::nullopt;
}

}  // namespace tidemark
