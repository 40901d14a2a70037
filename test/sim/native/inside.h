// The inside of the core's classes, for checks that must not depend on what these tell about
// themselves.
#pragma once

#include "core/dirty_map.h"
#include "core/volume.h"
#include "core/volume_impl.h"

namespace tidemark::sim {

VolumeImpl& inside(Volume& volume);
const LazyBitmap& inside(const DirtyMap& map);

}  // namespace tidemark::sim
