#define BIRNN_ISA isa_avx2
#include "kernels.inc"

namespace birnn {

extern const Kernels avx2_kernels = {
    "avx2", BIRNN_ISA::LANES, BIRNN_ISA::product<BIRNN_ISA::Fp32>, BIRNN_ISA::walk<BIRNN_ISA::Fp32>, nullptr, nullptr};

}  // namespace birnn
