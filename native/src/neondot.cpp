#define BIRNN_ISA isa_neondot
#include "kernels.inc"

namespace birnn {

extern const Kernels neondot_kernels = {"neondot", {}, {}, BIRNN_ISA::arithmetic<BIRNN_ISA::Int8>()};

}  // namespace birnn
