#define BIRNN_ISA isa_avx512vnni
#include "kernels.inc"

namespace birnn {

extern const Kernels avx512vnni_kernels = {"avx512vnni", {}, {}, BIRNN_ISA::arithmetic<BIRNN_ISA::Int8>()};

}  // namespace birnn
