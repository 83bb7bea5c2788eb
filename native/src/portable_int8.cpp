// What is fused has one rounding here, too, in software where the processor has no instruction for it: int8 has the same bits
// everywhere. It is slow then, and meant to be compared with.
#define BIRNN_FUSED
#define BIRNN_ISA isa_portable_int8
#include "kernels.inc"

namespace birnn {

extern const Kernels portable_int8_kernels = {"portable", {}, {}, BIRNN_ISA::arithmetic<BIRNN_ISA::Int8>()};

}  // namespace birnn
