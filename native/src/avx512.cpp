#define BIRNN_ISA isa_avx512
#include "kernels.inc"

namespace birnn {

extern const Kernels avx512_kernels = {
    "avx512", BIRNN_ISA::LANES, BIRNN_ISA::product<BIRNN_ISA::Fp32>, BIRNN_ISA::walk<BIRNN_ISA::Fp32>, nullptr, nullptr};

}  // namespace birnn
