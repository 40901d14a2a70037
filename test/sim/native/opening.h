// Which machine the volume that is being opened belongs to, from SimMachine's addon to the engine
// below it, and what came of it.
#pragma once

#include <memory>

#include "machine.h"

namespace tidemark::addon {
class Session;
}

namespace tidemark::sim {

struct Opening {
  Machine* machine = nullptr;
  std::shared_ptr<addon::Session> session;
};
Opening& opening();

}  // namespace tidemark::sim
