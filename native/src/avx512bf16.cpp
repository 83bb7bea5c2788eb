#define BIRNN_ISA isa_avx512bf16
#include "kernels.inc"

namespace birnn {

// In fp32 it does what avx512 does.
extern const Kernels avx512bf16_kernels = {
    "avx512bf16", BIRNN_ISA::LANES, nullptr, nullptr, BIRNN_ISA::product<BIRNN_ISA::Bf16>, BIRNN_ISA::walk<BIRNN_ISA::Bf16>};

}  // namespace birnn
