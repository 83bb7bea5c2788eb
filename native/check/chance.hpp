// What the checks of the front end decide by chance, and how they fail.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

namespace birnn_check {

using Random = std::mt19937_64;

inline int64_t between(Random& random, int64_t least, int64_t most) {
    return std::uniform_int_distribution<int64_t>(least, most)(random);
}

inline bool one_in(Random& random, int64_t count) { return between(random, 1, count) == 1; }

inline void check(bool holds, const std::string& what) {
    if (holds) return;
    std::fprintf(stderr, "FAILED: %s\n", what.c_str());
    std::_Exit(1);
}

}  // namespace birnn_check
