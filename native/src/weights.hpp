// Weights of one direction of one layer, in the layouts of kernels.hpp.
#pragma once

#include <cstdint>
#include <cstring>

#include "buffer.hpp"
#include "kernels.hpp"

namespace birnn {

// A float rounded to the nearest bf16, to even where two are as near.
inline uint16_t to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);  // NaN stays NaN
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline void convert(const float* from, int64_t count, float* to) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

inline void convert(const float* from, int64_t count, uint16_t* to) {
    for (int64_t i = 0; i < count; i++) to[i] = to_bf16(from[i]);
}

// How the columns of an input lie in the model and in ours: the states of a layer below come in two padded halves.
struct Columns {
    int64_t model;   // columns of the weights as they are given
    int64_t half;    // number of these that come first ...
    int64_t padded;  // ... and then begins the next half here
    int64_t inputs;  // K: columns here

    int64_t place(int64_t column) const { return column < half ? column : padded + column - half; }
};

// Packs `gates` gates of `from` [gates of the cell][hidden][columns.model], from gate `first` on, as kernels.hpp says.
template <class T>
void pack(const float* from, int first, int gates, int64_t hidden, const Columns& columns, int lanes, Buffer& to) {
    const int64_t panels = (hidden + lanes - 1) / lanes;
    const int together = sizeof(T) == sizeof(float) ? 1 : 2;
    const size_t count = static_cast<size_t>(panels * columns.inputs * gates * lanes);
    T* packed = to.room<T>(count);
    std::memset(static_cast<void*>(packed), 0, count * sizeof(T));
    for (int64_t column = 0; column < columns.model; column++) {
        const int64_t k = columns.place(column);
        for (int gate = 0; gate < gates; gate++) {
            for (int64_t j = 0; j < hidden; j++) {
                const float* value = from + ((first + gate) * hidden + j) * columns.model + column;
                const int64_t block = (j / lanes * (columns.inputs / together) + k / together) * gates + gate;
                convert(value, 1, packed + (block * lanes + j % lanes) * together + k % together);
            }
        }
    }
}

// Packs `gates` rows of biases [gates][hidden] by panel: [panels][gates][lanes].
inline void pack_bias(const float* from, int gates, int64_t hidden, int lanes, Buffer& to) {
    const int64_t panels = (hidden + lanes - 1) / lanes;
    float* packed = to.room<float>(static_cast<size_t>(panels * gates * lanes));
    std::memset(packed, 0, static_cast<size_t>(panels * gates * lanes) * sizeof(float));
    for (int gate = 0; gate < gates; gate++) {
        for (int64_t j = 0; j < hidden; j++) {
            packed[(j / lanes * gates + gate) * lanes + j % lanes] = from[gate * hidden + j];
        }
    }
}

struct DirectionWeights {
    Buffer input;           // W; empty where all products are in the table
    Buffer bias;            // of W x
    Buffer table;           // W emb + b of every id, in fp32
    Buffer recurrent;       // R
    Buffer candidate;       // R of the candidate of gru_reset_first
    Buffer candidate_bias;  // inside the reset product of gru

    size_t bytes() const {
        return input.bytes() + bias.bytes() + table.bytes() + recurrent.bytes() + candidate.bytes() + candidate_bias.bytes();
    }
};

}  // namespace birnn
