#define BIRNN_ISA isa_portable
#include "kernels.inc"

namespace birnn {

extern const Kernels portable_kernels = {
    "portable", BIRNN_ISA::LANES, BIRNN_ISA::product<BIRNN_ISA::Fp32>, BIRNN_ISA::walk<BIRNN_ISA::Fp32>, nullptr, nullptr};

}  // namespace birnn
