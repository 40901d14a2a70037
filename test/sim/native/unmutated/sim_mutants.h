// The mutants of this build: none. test/sim/build.ts writes one like it beside the mutated core.
#pragma once

namespace tidemark::sim {

enum Mutant : int { kNoMutant = 0 };

// The one that is chosen.
extern int mutant;

// By number.
inline constexpr const char* kMutantNames[] = {""};

}  // namespace tidemark::sim
