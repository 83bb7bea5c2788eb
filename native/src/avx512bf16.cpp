#define BIRNN_ISA isa_avx512bf16
#include "kernels.inc"

namespace birnn {

extern const Kernels avx512bf16_kernels = {"avx512bf16", {}, BIRNN_ISA::arithmetic<BIRNN_ISA::Bf16>(), {}};

}  // namespace birnn
