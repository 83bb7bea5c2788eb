#define BIRNN_ISA isa_avx512
#include "kernels.inc"

namespace birnn {

extern const Kernels avx512_kernels = {"avx512", BIRNN_ISA::arithmetic<BIRNN_ISA::Fp32>(), {}, {}};

}  // namespace birnn
