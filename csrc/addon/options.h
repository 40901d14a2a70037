// The options and parameters that JavaScript passes in, read and checked field by field: names,
// units and words are those of lib/binding/native.ts. Each reader leaves its result half filled
// when `reader.failed()` afterwards.
#pragma once

#include "addon/argument.h"
#include "core/volume.h"
#include "engine/create.h"
#include "engine/engine.h"

namespace tidemark::addon {

struct OpenOptions {
  EngineOptions engine;
  bool suspended = false;
};

OpenOptions read_open_options(ArgumentReader& reader, const Argument& options);
CreateOptions read_create_options(ArgumentReader& reader, const Argument& options);
DumpOptions read_dump_options(ArgumentReader& reader, const Argument& options);
// Changes the given ones of `limits`.
void read_limits(ArgumentReader& reader, const Argument& options, Limits* limits);
LinkParams read_link_params(ArgumentReader& reader, const Argument& params);
NbdOptions read_nbd_options(ArgumentReader& reader, const Argument& options);
UblkOptions read_ublk_options(ArgumentReader& reader, const Argument& options);

}  // namespace tidemark::addon
