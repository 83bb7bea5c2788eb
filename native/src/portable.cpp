#define BIRNN_ISA isa_portable
#include "kernels.inc"

namespace birnn {

extern const Kernels portable_kernels = {"portable", BIRNN_ISA::arithmetic<BIRNN_ISA::Fp32>(), {}, {}};

}  // namespace birnn
