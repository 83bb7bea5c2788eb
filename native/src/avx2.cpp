#define BIRNN_ISA isa_avx2
#include "kernels.inc"

namespace birnn {

extern const Kernels avx2_kernels = {
    "avx2", BIRNN_ISA::arithmetic<BIRNN_ISA::Fp32>(), {}, BIRNN_ISA::arithmetic<BIRNN_ISA::Int8>()};

}  // namespace birnn
