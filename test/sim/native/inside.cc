#include "inside.h"

namespace tidemark::sim {
namespace {

// An explicit instantiation may name private members; the friend that comes with it hands them out.
template <auto kMember>
struct VolumeDoor {
  friend VolumeImpl& open_door(Volume& volume) { return *(volume.*kMember); }
};
VolumeImpl& open_door(Volume& volume);
template struct VolumeDoor<&Volume::impl_>;

template <auto kMember>
struct MapDoor {
  friend const LazyBitmap& open_door(const DirtyMap& map) { return map.*kMember; }
};
const LazyBitmap& open_door(const DirtyMap& map);
template struct MapDoor<&DirtyMap::dirty_>;

}  // namespace

VolumeImpl& inside(Volume& volume) { return open_door(volume); }
const LazyBitmap& inside(const DirtyMap& map) { return open_door(map); }

}  // namespace tidemark::sim
