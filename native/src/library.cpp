// What include/birnn.h declares.

#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "birnn.h"
#include "encoder.hpp"

#if defined(BIRNN_HAVE_NEONDOT)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace {

using namespace birnn;

// Whether this processor runs an instruction set.
bool runs_here([[maybe_unused]] const std::string& name) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (name == "avx2") return avx2;
    if (name == "avx512") return avx512;
    // Names that a compiler without these sets may not know.
#if defined(BIRNN_HAVE_AVXVNNI)
    if (name == "avxvnni") return avx2 && __builtin_cpu_supports("avxvnni");
#endif
#if defined(BIRNN_HAVE_AVX512VNNI)
    if (name == "avx512vnni") return avx512 && __builtin_cpu_supports("avx512vnni");
#endif
#if defined(BIRNN_HAVE_AVX512BF16)
    if (name == "avx512bf16") return avx512 && __builtin_cpu_supports("avx512bf16");
#endif
#endif
#if defined(BIRNN_HAVE_NEONDOT)
    if (name == "neondot") return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#endif
    return name == "portable";
}

void complete(Arithmetic& arithmetic, const Arithmetic& of_another) {
    if (!arithmetic.walk) arithmetic = of_another;
}

// Kernels that were built and run here, the best first. What a set lacks, it takes from the next lesser one.
std::vector<Kernels> usable_kernels() {
    const Kernels built[] = {
        portable_kernels,
#if defined(BIRNN_HAVE_NEONDOT)
        neondot_kernels,
#endif
#if defined(BIRNN_HAVE_AVX2)
        avx2_kernels,
#endif
#if defined(BIRNN_HAVE_AVXVNNI)
        avxvnni_kernels,
#endif
#if defined(BIRNN_HAVE_AVX512)
        avx512_kernels,
#endif
#if defined(BIRNN_HAVE_AVX512VNNI)
        avx512vnni_kernels,
#endif
#if defined(BIRNN_HAVE_AVX512BF16)
        avx512bf16_kernels,
#endif
    };
    std::vector<Kernels> usable;
    const Kernels* lesser = &portable_int8_kernels;
    for (Kernels kernels : built) {
        if (!runs_here(kernels.name)) continue;
        complete(kernels.fp32, lesser->fp32);
        complete(kernels.bf16, lesser->bf16);
        complete(kernels.int8, lesser->int8);
        usable.insert(usable.begin(), kernels);
        lesser = &usable.front();
    }
    return usable;
}

Kernels kernels_named(const std::string& name) {
    for (const Kernels& kernels : usable_kernels()) {
        if (name == kernels.name) return kernels;
    }
    throw std::invalid_argument("no kernels named " + name + " run here");
}

void copy_text(const std::string& text, char* to, size_t size) {
    if (to && size) std::snprintf(to, size, "%s", text.c_str());
}

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

struct birnn_encoder {
    birnn::Encoder encoder;
};

void birnn_instruction_sets(char* names, size_t size) {
    std::string all;
    for (const Kernels& kernels : usable_kernels()) {
        all += (all.empty() ? "" : ",") + std::string(kernels.name);
        if (kernels.bf16.walk) all += "+bf16";
        if (kernels.int8.walk) all += "+int8";
    }
    copy_text(all, names, size);
}

int32_t birnn_gates(int32_t cell) { return birnn::gates_of(cell); }

birnn_encoder* birnn_create(const char* instruction_set, int32_t precision, int32_t cell, int32_t layers, const int64_t* hidden,
                            int64_t input_size, int64_t vocabulary, const float* embedding, const float* const* W,
                            const float* const* R, const float* const* B, int64_t most_table_bytes, char* error,
                            size_t error_size) {
    birnn_encoder* encoder = nullptr;
    guarded(error, error_size, [&] {
        if (!instruction_set) throw std::invalid_argument("the name of an instruction set is missing");
        // Numbers that are none of an enumeration must not become one.
        if (!birnn_gates(cell)) throw std::invalid_argument("there is no cell " + std::to_string(cell));
        if (precision < BIRNN_FP32 || precision > BIRNN_INT8) {
            throw std::invalid_argument("there is no precision " + std::to_string(precision));
        }
        const birnn::Model model{
            static_cast<birnn_cell>(cell), layers, hidden, input_size, vocabulary, embedding, W, R, B, most_table_bytes};
        encoder = new birnn_encoder{{kernels_named(instruction_set), static_cast<birnn_precision>(precision), model}};
    });
    return encoder;
}

void birnn_destroy(birnn_encoder* encoder) { delete encoder; }

int64_t birnn_bytes(const birnn_encoder* encoder) { return encoder ? static_cast<int64_t>(encoder->encoder.bytes()) : 0; }

int32_t birnn_run(birnn_encoder* encoder, const int32_t* ids, const float* features, int64_t tokens, const int64_t* offsets,
                  int64_t rows, int32_t pooling, int32_t threads, float* out, int64_t out_size, char* error, size_t error_size) {
    return guarded(error, error_size, [&] {
        if (!encoder || !offsets || !out) throw std::invalid_argument("the encoder, the offsets or the output is missing");
        if (rows < 1 || tokens < rows) throw std::invalid_argument("a batch has at least one row, and each row a token");
        if (tokens > MOST_TOKENS || offsets[rows] != tokens) throw std::invalid_argument("offsets must end at the tokens");
        if (pooling < BIRNN_FINAL || pooling > BIRNN_TOKENS) {
            throw std::invalid_argument("there is no pooling " + std::to_string(pooling));
        }
        const birnn_pooling wanted = static_cast<birnn_pooling>(pooling);
        const int64_t wanted_rows = wanted == BIRNN_TOKENS ? tokens : rows;
        const int64_t width = encoder->encoder.width(wanted);
        if (out_size != wanted_rows * width) {
            throw std::invalid_argument("the output has room for " + std::to_string(out_size) + " floats, " +
                                        std::to_string(wanted_rows) + " x " + std::to_string(width) + " expected");
        }
        encoder->encoder.run({ids, features, offsets, rows, tokens}, wanted, threads, out);
    });
}
