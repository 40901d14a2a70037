#include "engine/create.h"

#include <doctest/doctest.h>

#include "engine/backing.h"
#include "engine/metadata_place.h"
#include "temporary.h"

namespace tidemark {
namespace {

constexpr uint64_t kDevice = 64u << 20;

struct Rig {
  CreateOptions options(Placement placement = Placement::kEnd) const {
    CreateOptions out;
    out.name = "volume";
    out.backing_path = folder.file("disk", kDevice);
    out.placement = placement;
    if (placement == Placement::kOffset) out.metadata_offset = 32u << 20;
    if (placement == Placement::kExternal) out.metadata_path = folder.path("meta");
    return out;
  }
  std::string code(const CreateOptions& options) {
    const auto error = create_volume(options, &report);
    if (error) {
      CHECK_FALSE(error->message.empty());
      return error->code;
    }
    return "";
  }
  // The code of looking for the metadata, or the place where it was found.
  std::string find(const CreateOptions& options, MetadataPlace* place) const {
    EngineError error;
    const bool external = options.placement == Placement::kExternal;
    const auto device =
        Backing::open_read_only(external ? options.metadata_path : options.backing_path, &error);
    REQUIRE(device != nullptr);
    if (find_metadata(*device, options.placement, options.metadata_offset, place, &error))
      return "";
    return error.code;
  }
  TemporaryFolder folder;
  CreateReport report;
};

TEST_CASE("metadata is found where it was created, in every placement") {
  for (const Placement placement :
       {Placement::kEnd, Placement::kStart, Placement::kOffset, Placement::kExternal}) {
    CAPTURE(placement_text(placement));
    Rig rig;
    const CreateOptions options = rig.options(placement);
    REQUIRE(rig.code(options) == "");
    MetadataPlace place;
    CHECK(rig.find(options, &place) == "");
    CHECK(place.offset == rig.report.metadata_offset);
    CHECK(place.bytes == rig.report.metadata_bytes);
    CHECK(place.superblock.geometry.volume_bytes == rig.report.volume_bytes);
    CHECK(place.warnings.empty());
    CHECK(rig.report.volume_bytes > kDevice / 4);
  }
}

TEST_CASE("one damaged superblock copy is stepped over, two are refused by name") {
  for (const Placement placement :
       {Placement::kEnd, Placement::kStart, Placement::kOffset, Placement::kExternal}) {
    for (const bool first : {true, false}) {
      CAPTURE(placement_text(placement));
      Rig rig;
      const CreateOptions options = rig.options(placement);
      REQUIRE(rig.code(options) == "");
      const std::string file = placement == Placement::kExternal ? "meta" : "disk";
      const uint64_t copies[] = {rig.report.metadata_offset,
                                 rig.report.metadata_offset + rig.report.metadata_bytes - 4096};
      rig.folder.put(file, copies[first ? 0 : 1] + 700, "scratched");
      MetadataPlace place;
      CHECK(rig.find(options, &place) == "");
      CHECK(place.offset == rig.report.metadata_offset);
      rig.folder.put(file, copies[first ? 1 : 0] + 700, "scratched");
      CHECK(rig.find(options, &place) == "METADATA_DAMAGED");
    }
  }
}

TEST_CASE("a wrong placement, a blank disk and a foreign one are told apart") {
  Rig rig;
  CreateOptions options = rig.options();
  MetadataPlace place;
  CHECK(rig.find(options, &place) == "METADATA_BLANK");
  rig.folder.put("disk", kDevice - 4096, "something else");
  CHECK(rig.find(options, &place) == "METADATA_FOREIGN");
  options.placement = Placement::kStart;
  REQUIRE(rig.code(options) == "");
  options.placement = Placement::kOffset;
  options.metadata_offset = 0;
  CHECK(rig.find(options, &place) == "METADATA_MISMATCH");
}

TEST_CASE("a disk that carries something is refused untouched, and overwritten with force") {
  Rig rig;
  CreateOptions options = rig.options();
  rig.folder.put("disk", 1024 + 56, "\x53\xef");
  CHECK(rig.code(options) == "EXISTS");
  CHECK(rig.folder.get("disk", kDevice - 4096, 4096) == std::string(4096, '\0'));
  options.force = true;
  CHECK(rig.code(options) == "");
  CHECK(rig.report.overwritten.size() == 1);
  options.force = false;
  CHECK(rig.code(options) == "EXISTS");
}

TEST_CASE("moved metadata leaves no old superblock behind") {
  Rig rig;
  CreateOptions options = rig.options();
  REQUIRE(rig.code(options) == "");
  options.placement = Placement::kStart;
  options.force = true;
  REQUIRE(rig.code(options) == "");
  options.placement = Placement::kEnd;
  MetadataPlace place;
  CHECK(rig.find(options, &place) == "METADATA_BLANK");
}

TEST_CASE("an external metadata file that is no metadata stays as it is") {
  Rig rig;
  CreateOptions options = rig.options(Placement::kExternal);
  rig.folder.file("meta", 8192);
  rig.folder.put("meta", 0, "letters to my aunt");
  CHECK(rig.code(options) != "");
  CHECK(rig.folder.get("meta", 0, 18) == "letters to my aunt");
}

TEST_CASE("nonsense is refused before anything is written, and a file made for it goes again") {
  Rig rig;
  const auto refused = [&](auto change, Placement placement = Placement::kEnd) {
    CreateOptions options = rig.options(placement);
    change(options);
    CHECK(rig.code(options) != "");
    CHECK(access(rig.folder.path("meta").c_str(), F_OK) != 0);
    CHECK(rig.folder.get("disk", kDevice - 4096, 4096) == std::string(4096, '\0'));
  };
  refused([](CreateOptions& o) { o.name = ""; });
  refused([](CreateOptions& o) { o.name = std::string(64, 'n'); });
  refused([](CreateOptions& o) { o.backing_path = "/nowhere/at/all"; });
  refused([](CreateOptions& o) { o.backing_path = "/dev/null"; });
  refused([](CreateOptions& o) { o.backing_path = "/"; });
  refused([](CreateOptions& o) { o.metadata_path = "/tmp/meta"; });
  refused([](CreateOptions& o) { o.chunk_bytes = 5000; });
  refused([](CreateOptions& o) { o.chunk_bytes = 0; });
  refused([](CreateOptions& o) { o.extent_bytes = 4096; });
  refused([](CreateOptions& o) { o.log_extents = 70'000; });
  refused([](CreateOptions& o) { o.peer_slots = 0; });
  refused([](CreateOptions& o) { o.peer_slots = 9; });
  refused([](CreateOptions& o) { o.size_bytes = kDevice; });
  refused([](CreateOptions& o) { o.size_bytes = 1000; });
  refused([](CreateOptions& o) { o.metadata_offset = kDevice; }, Placement::kOffset);
  refused([](CreateOptions& o) { o.metadata_offset = 1000; }, Placement::kOffset);
  refused([](CreateOptions& o) { o.metadata_path = "/nowhere/meta"; }, Placement::kExternal);
  refused([](CreateOptions& o) { o.metadata_path = o.backing_path; }, Placement::kExternal);
}

TEST_CASE("a smaller size than fits is kept") {
  for (const Placement placement : {Placement::kEnd, Placement::kStart, Placement::kExternal}) {
    Rig rig;
    CreateOptions options = rig.options(placement);
    options.size_bytes = 10u << 20;
    REQUIRE(rig.code(options) == "");
    MetadataPlace place;
    CHECK(rig.find(options, &place) == "");
    CHECK(place.superblock.geometry.volume_bytes == 10u << 20);
  }
}

}  // namespace
}  // namespace tidemark
