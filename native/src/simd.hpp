// One vector type, and the arithmetic of a gate on it, for whatever instruction set this file is compiled for.
//
// Only the compiler's own vectors and intrinsics, and nothing of the standard library: each instruction set is a separate
// translation unit, and an inline function of a header that two of them share could be linked in the wrong one's version.
//
// Multiply and add are fused only where `fused` says so (-ffp-contract=off does the rest), so that a row's result does not
// depend on which of several instances of a template computes it.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace birnn::BIRNN_ISA {

#if defined(__AVX512F__)
constexpr int LANES = 16;
constexpr int ACCUMULATORS = 24;  // of 32 registers: the others hold weights and a state
#elif defined(__AVX2__)
constexpr int LANES = 8;
constexpr int ACCUMULATORS = 12;
#elif defined(__ARM_NEON)
constexpr int LANES = 4;
constexpr int ACCUMULATORS = 24;
#elif defined(BIRNN_FUSED)
constexpr int LANES = 4;
constexpr int ACCUMULATORS = 4;  // calls leave nothing in registers: little code
#else
constexpr int LANES = 4;
constexpr int ACCUMULATORS = 12;
#endif

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));

static inline Vector load(const float* from) {
    Vector value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline Integers load(const int32_t* from) {
    Integers value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline void store(float* to, Vector value) { memcpy(to, &value, sizeof value); }

// Subtracting zero changes no number, which the compiler knows; adding it would make 0 of -0, and so be done.
static inline Vector spread(float value) { return value - Vector{}; }

// a * b + c, in one rounding where the processor has an instruction for it or BIRNN_FUSED asks for it, in two everywhere else.
static inline Vector fused(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
    return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (Vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON)
    return (Vector)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#elif defined(BIRNN_FUSED)
    Vector sum;
    for (int lane = 0; lane < LANES; lane++) sum[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
    return sum;
#else
    return a * b + c;
#endif
}

// Elements of `a` where `where` is all ones, of `b` where it is all zeros.
static inline Vector choose(Integers where, Vector a, Vector b) {
    return (Vector)((where & (Integers)a) | (~where & (Integers)b));
}

// The larger one; `b` where either is not a number.
static inline Vector larger(Vector a, Vector b) {
#if defined(__AVX512F__)
    return (Vector)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Vector)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return choose((Integers)(a > b), a, b);
#endif
}

// The smaller one; `b` where either is not a number.
static inline Vector smaller(Vector a, Vector b) {
#if defined(__AVX512F__)
    return (Vector)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Vector)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return choose((Integers)(a < b), a, b);
#endif
}

// exp(x) to about 1e-7, relative, for |x| up to 87; what is beyond counts as 87, and NaN stays.
//
// exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2, where exp(r) is the polynomial of degree 6 of the Cephes
// library (S. L. Moshier, expf.c) and ln 2 is taken off in two parts (Cody and Waite).
static inline Vector exponential(Vector x) {
    x = smaller(spread(87.0f), larger(spread(-87.0f), x));
    // Adding 1.5 * 2^23 leaves the nearest whole number in the low bits.
    const Vector magic = spread(12582912.0f);
    const Vector shifted = fused(x, spread(1.44269504088896341f), magic);
    const Vector n = shifted - magic;
    Vector r = fused(n, spread(-0.693359375f), x);
    r = fused(n, spread(2.12194440e-4f), r);
    Vector p = spread(1.9875691500e-4f);
    p = fused(p, r, spread(1.3981999507e-3f));
    p = fused(p, r, spread(8.3334519073e-3f));
    p = fused(p, r, spread(4.1665795894e-2f));
    p = fused(p, r, spread(1.6666665459e-1f));
    p = fused(p, r, spread(5.0000001201e-1f));
    p = fused(p, r * r, r) + 1.0f;
    const Integers power = ((Integers)shifted - (Integers)magic + 127) << 23;
    return p * (Vector)power;
}

// Divided, and not by 14 bits and one step of Newton's: that measured no faster.
static inline Vector sigmoid(Vector x) { return 1.0f / (1.0f + exponential(-x)); }

// tanh x = 1 - 2 / (exp(2x) + 1): its absolute error is what matters to a state, and that is about 1e-7.
static inline Vector tanh(Vector x) { return 1.0f - 2.0f / (exponential(x + x) + 1.0f); }

static inline Vector relu(Vector x) { return larger(Vector{}, x); }

#if defined(__AVX512BF16__)
// A pair of consecutive bf16 of one row, spread over all lanes, times a pair a lane, added in fp32: two terms a step.
static inline Vector fused_pairs(Vector accumulator, uint32_t pair, __m512i weights) {
    return (Vector)_mm512_dpbf16_ps((__m512)accumulator, (__m512bh)_mm512_set1_epi32((int)pair), (__m512bh)weights);
}

static inline void store_bf16(uint16_t* to, Vector value) {
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)value);
    memcpy(to, &rounded, sizeof rounded);
}
#endif

// Bytes of states, a = round(127 h). Where the instruction set multiplies unsigned bytes by signed ones they are a + 128, and a
// sum begins with -128 times the weights that it multiplies: 32 bits may overflow under way, and do not in the end.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
constexpr bool BIASED = true;
#else
constexpr bool BIASED = false;
#endif

// Four consecutive bytes of one row, spread over all lanes, times four weights a lane, added in 32 bits.
//
// GCC 12 does not keep the sums of its intrinsics for VNNI in registers. What stands in assembly it does.
static inline Integers dot(Integers sum, const int8_t* states, Integers weights) {
    int32_t four;
    memcpy(&four, states, sizeof four);
#if defined(__AVX512VNNI__)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(_mm512_set1_epi32(four)), "vm"(weights));
    return sum;
#elif defined(__AVXVNNI__)
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(_mm256_set1_epi32(four)), "xm"(weights));
    return sum;
#elif defined(__AVX2__) && !defined(__AVX512F__)
    // |a| times w with the sign of a: two of at most 127 * 127 fit into 16 bits.
    const __m256i a = _mm256_set1_epi32(four);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8((__m256i)weights, a));
    return sum + (Integers)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#elif defined(__ARM_FEATURE_DOTPROD)
    return (Integers)vdotq_s32((int32x4_t)sum, vreinterpretq_s8_s32(vdupq_n_s32(four)), (int8x16_t)weights);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(four)), w = (int8x16_t)weights;
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(w)), high = vmull_high_s8(a, w);
    return sum + (Integers)vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
#else
    int8_t w[4 * LANES];
    memcpy(w, &weights, sizeof w);
    for (int lane = 0; lane < LANES; lane++) {
        for (int i = 0; i < 4; i++) sum[lane] += states[i] * w[4 * lane + i];
    }
    return sum;
#endif
}

static inline Vector to_floats(Integers values) { return __builtin_convertvector(values, Vector); }

// States as bytes, rounded to the nearest, to even where two are as near; what is no number counts as -1.
static inline void store_int8(int8_t* to, Vector states) {
    states = smaller(larger(states, spread(-1.0f)), spread(1.0f));
    // Adding 1.5 * 2^23 leaves the nearest whole number in the low bits: 127 h is exact before it is rounded there.
    const Vector shifted = fused(states, spread(127.0f), spread(BIASED ? 12582912.0f + 128.0f : 12582912.0f));
#if defined(__AVX512F__)
    const __m128i bytes = _mm512_cvtepi32_epi8((__m512i)shifted);
    memcpy(to, &bytes, sizeof bytes);
#elif defined(__AVX2__)
    const __m256i lowest = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,  //
                                            0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i halves = _mm256_shuffle_epi8((__m256i)shifted, lowest);
    const __m128i bytes = _mm_unpacklo_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    _mm_storel_epi64((__m128i*)to, bytes);
#else
    for (int lane = 0; lane < LANES; lane++) to[lane] = (int8_t)((Integers)shifted)[lane];
#endif
}

}  // namespace birnn::BIRNN_ISA
