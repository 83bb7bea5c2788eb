// What the instruction sets have in common: what a kernel is told, and which kernels there are.
//
// Notation: H hidden size, padded up to whole vectors; G gates; a panel is one vector of hidden columns with all its gates.
// Weights of a product are packed by panel, then by input k, gate and lane: [panels][K][G][lanes] in fp32, in bf16
// [panels][K / 2][G][lanes][2], two consecutive inputs side by side, and in int8 [panels][K / 4][G][lanes][4]. Products of
// tokens are [token][panels][G][lanes], in float32.
//
// int8: a weight is scale * w with |w| <= 127 and a scale for each row of the matrix; a state h, |h| <= 1, is a / 127 with
// a = round(127 h). A sum of w a is a whole number of 32 bits, and so exact in any order. It becomes float32 (exact, too, up to
// 2^24), is multiplied by its scale and added to the float32 rest in one rounding; all that follows is float32.
#pragma once

#include <stdint.h>

#include "birnn.h"

namespace birnn {

// 0 where there is no such cell.
constexpr int gates_of(int32_t cell) {
    switch (cell) {
        case BIRNN_GRU:
        case BIRNN_GRU_RESET_FIRST: return 3;
        case BIRNN_LSTM: return 4;
        case BIRNN_RNN_TANH:
        case BIRNN_RNN_RELU: return 1;
        default: return 0;
    }
}

// The most inputs of a product in int8: a sum of as many fits into 32 bits.
constexpr int64_t MOST_INT8_INPUTS = INT32_MAX / (127 * 127);

// Packed weights.
struct Matrix {
    const void* values;      // [panels][K][G][lanes]
    const float* scales;     // of int8, [panels][G][lanes]: what 1 of a sum is worth
    const int32_t* offsets;  // of int8, likewise: -128 times the sum of a row's weights, see simd.hpp
};

// out[token] = bias + W input[token], for all tokens; inputs are of the same kind as the weights.
struct Product {
    int gates;
    int panels;
    int inputs;  // K, even; in int8 a multiple of 4
    Matrix weights;
    const float* bias;  // [panels][G][lanes]
    const void* input;  // [tokens][K]
    int64_t tokens;
    float* output;  // [tokens][panels][G][lanes]
};

// One direction of one layer over all steps of a batch whose rows are sorted, the longest first.
struct Walk {
    birnn_cell cell;
    bool backward;
    int hidden;  // H as in the model
    int panels;  // padded H / lanes

    Matrix recurrent;             // R; of gru_reset_first the gates z and r only
    Matrix candidate;             // R of the candidate of gru_reset_first
    const float* candidate_bias;  // its hidden bias [panels][lanes]; inside the reset product where cell is gru

    int rows;
    const int64_t* lengths;  // [rows], descending
    const int64_t* bases;    // [rows]: where each row's tokens begin
    const float* products;   // W x + b by `index`, [.][panels][G][lanes]
    const int32_t* index;    // [tokens]: product of each token; null for its own number

    float* state[2];      // h before and after a step [rows][padded H]
    void* operand[2];     // the same as the kernel multiplies it; the states themselves in fp32
    float* cell_state;    // c of lstm [rows][padded H]
    float* update;        // z of gru_reset_first, likewise
    float* reset_state;   // r * h of gru_reset_first, likewise
    void* reset_operand;  // the same as it is multiplied

    // What is wanted, null where it is not. `places` are numbers of rows in the caller's order.
    const int64_t* places;  // [rows]
    float* last;            // last state of each row, at place * pooled_stride
    float* mean;            // mean over its steps, likewise
    float* maximum;         // maximum over its steps, likewise
    int64_t pooled_stride;
    float* steps;                 // every state, by token, at (token_places[row] + step) * steps_stride
    const int64_t* token_places;  // [rows]
    int64_t steps_stride;
    void* next;  // every state as the next layer multiplies it, by token, bases[row] + step
    int64_t next_stride;
};

// How a set multiplies in one precision; null where it cannot.
struct Arithmetic {
    int lanes;
    void (*product_fp32)(const Product&);  // of tables; in int8 of all that the first layer reads
    void (*product)(const Product&);
    void (*walk)(const Walk&);
};

// What one translation unit has.
struct Kernels {
    const char* name;
    Arithmetic fp32, bf16, int8;
};

extern const Kernels portable_kernels;
extern const Kernels portable_int8_kernels;
#if defined(BIRNN_HAVE_NEONDOT)
extern const Kernels neondot_kernels;
#endif
#if defined(BIRNN_HAVE_AVX2)
extern const Kernels avx2_kernels;
#endif
#if defined(BIRNN_HAVE_AVXVNNI)
extern const Kernels avxvnni_kernels;
#endif
#if defined(BIRNN_HAVE_AVX512)
extern const Kernels avx512_kernels;
#endif
#if defined(BIRNN_HAVE_AVX512VNNI)
extern const Kernels avx512vnni_kernels;
#endif
#if defined(BIRNN_HAVE_AVX512BF16)
extern const Kernels avx512bf16_kernels;
#endif

}  // namespace birnn
