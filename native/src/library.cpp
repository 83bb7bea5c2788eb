// The face to Python, in plain C: no exception leaves it, and whoever gives a pointer answers for what it points to.

#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "encoder.hpp"

#define BIRNN_PUBLIC extern "C" __attribute__((visibility("default")))

namespace {

using namespace birnn;

// Beyond it sizes in bytes would not fit in 64 bits.
constexpr int64_t MOST_TOKENS = int64_t{1} << 36;

bool runs_here(const Kernels& kernels) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (!std::strcmp(kernels.name, "avx2")) return avx2;
    if (!std::strcmp(kernels.name, "avx512")) return avx512;
#if defined(BIRNN_HAVE_AVX512BF16)  // else the compiler may not know the name
    if (!std::strcmp(kernels.name, "avx512bf16")) return avx512 && __builtin_cpu_supports("avx512bf16");
#endif
#endif
    return !std::strcmp(kernels.name, "portable");
}

#if defined(BIRNN_HAVE_AVX512) && defined(BIRNN_HAVE_AVX512BF16)
Kernels avx512_with_bf16() {
    Kernels kernels = avx512bf16_kernels;
    kernels.product_fp32 = avx512_kernels.product_fp32;
    kernels.walk_fp32 = avx512_kernels.walk_fp32;
    return kernels;
}
#endif

// Kernels that were built and run here, the best first.
std::vector<Kernels> usable_kernels() {
    const Kernels built[] = {
#if defined(BIRNN_HAVE_AVX512) && defined(BIRNN_HAVE_AVX512BF16)
        avx512_with_bf16(),
#endif
#if defined(BIRNN_HAVE_AVX512)
        avx512_kernels,
#endif
#if defined(BIRNN_HAVE_AVX2)
        avx2_kernels,
#endif
        portable_kernels,
    };
    std::vector<Kernels> usable;
    for (const Kernels& kernels : built) {
        if (runs_here(kernels)) usable.push_back(kernels);
    }
    return usable;
}

Kernels kernels_named(const std::string& name) {
    for (const Kernels& kernels : usable_kernels()) {
        if (name == kernels.name) return kernels;
    }
    throw std::invalid_argument("no kernels named " + name + " run here");
}

void copy_text(const std::string& text, char* to, size_t size) { std::snprintf(to, size, "%s", text.c_str()); }

// Runs `body`; true where it threw nothing, else `error` says what.
template <class Body>
bool guarded(char* error, size_t error_size, Body body) {
    try {
        body();
        return true;
    } catch (const std::exception& caught) {
        copy_text(caught.what(), error, error_size);
    } catch (...) {
        copy_text("unknown error", error, error_size);
    }
    return false;
}

}  // namespace

// Instruction sets that were built and run on this processor, the best first, with a comma between; where bf16 can be
// multiplied, the name is followed by "+bf16".
BIRNN_PUBLIC void birnn_instruction_sets(char* names, size_t size) {
    std::string all;
    for (const Kernels& kernels : usable_kernels()) {
        all += (all.empty() ? "" : ",") + std::string(kernels.name) + (kernels.walk_bf16 ? "+bf16" : "");
    }
    copy_text(all, names, size);
}

// An encoder, or null and the reason in `error`. It copies the weights.
BIRNN_PUBLIC birnn::Encoder* birnn_create(const char* instruction_set, int32_t bf16, int32_t cell, int32_t layers, int64_t hidden,
                                          int64_t input_size, int64_t vocabulary, const float* embedding, const float* const* W,
                                          const float* const* R, const float* const* B, int64_t most_table_bytes, char* error,
                                          size_t error_size) {
    birnn::Encoder* encoder = nullptr;
    guarded(error, error_size, [&] {
        const birnn::Model model{static_cast<birnn::Cell>(cell), layers, hidden, input_size, vocabulary, embedding, W, R, B,
                                 most_table_bytes};
        encoder = new birnn::Encoder(kernels_named(instruction_set), bf16 != 0, model);
    });
    return encoder;
}

BIRNN_PUBLIC void birnn_destroy(birnn::Encoder* encoder) { delete encoder; }

// Bytes of packed weights and tables.
BIRNN_PUBLIC int64_t birnn_bytes(const birnn::Encoder* encoder) { return static_cast<int64_t>(encoder->bytes()); }

// Encodes a batch of `rows` sequences and so many `tokens` in all, see birnn::Encoder::run; `out_size` is the room in `out`, in
// floats. False and the reason in `error` where that is not possible; then `out` is undefined.
BIRNN_PUBLIC int32_t birnn_run(birnn::Encoder* encoder, const int32_t* ids, const float* features, int64_t tokens,
                               const int64_t* offsets, int64_t rows, int32_t output, int32_t threads, float* out, int64_t out_size, char* error,
                               size_t error_size) {
    return guarded(error, error_size, [&] {
        if (rows < 1 || tokens < rows) throw std::invalid_argument("a batch has at least one row, and each row a token");
        if (tokens > MOST_TOKENS || offsets[rows] != tokens) throw std::invalid_argument("offsets must end at the tokens");
        const birnn::Output wanted = static_cast<birnn::Output>(output);
        const int64_t wanted_rows = wanted == birnn::Output::tokens ? tokens : rows;
        if (out_size != wanted_rows * encoder->width(wanted)) {
            throw std::invalid_argument("the output has room for " + std::to_string(out_size) + " floats, " +
                                        std::to_string(wanted_rows) + " x " + std::to_string(encoder->width(wanted)) + " expected");
        }
        encoder->run({ids, features, offsets, rows, tokens}, wanted, threads, out);
    });
}
