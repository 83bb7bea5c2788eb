#define BIRNN_ISA isa_avxvnni
#include "kernels.inc"

namespace birnn {

extern const Kernels avxvnni_kernels = {"avxvnni", {}, {}, BIRNN_ISA::arithmetic<BIRNN_ISA::Int8>()};

}  // namespace birnn
