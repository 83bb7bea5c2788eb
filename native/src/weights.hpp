// Weights of one direction of one layer, in the layouts of kernels.hpp.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

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

struct PackedMatrix {
    Buffer values, scales, offsets;

    Matrix matrix() const { return {values.values<void>(), scales.values<float>(), offsets.values<int32_t>()}; }
    size_t bytes() const { return values.bytes() + scales.bytes() + offsets.bytes(); }
};

// A row of weights as whole numbers of at most 127 times a scale, as near to them as a scale brings them. A few weights that are
// larger than all others may be cut for that. Then some are rounded the other way, those that are nearest to a half, until the
// errors of the row cancel out: states have a mean, and would carry a sum of errors from step to step.
class Int8Row {
   public:
    Int8Row(const float* weights, int64_t count) : weights_(weights), whole_(static_cast<size_t>(count)) {
        double largest = 0;
        for (int64_t i = 0; i < count; i++) {
            // Not by fmax: GCC 12 for aarch64 fails to vectorize that, by an internal error.
            const double size = std::fabs(weights[i]);
            if (size > largest) largest = size;
        }
        if (largest == 0) return;
        double least = INFINITY;
        for (int percent = 100; percent >= 60; percent--) {
            const double unit = largest * percent / (100 * 127);
            double squares = 0;
            for (int64_t i = 0; i < count; i++) {
                const double error = rounded(weights[i] / unit) * unit - weights[i];
                squares += error * error;
            }
            if (squares < least) {
                least = squares;
                unit_ = unit;
            }
        }
        for (int64_t i = 0; i < count; i++) whole_[static_cast<size_t>(i)] = static_cast<int8_t>(rounded(weights[i] / unit_));
        cancel();
    }

    int8_t operator[](int64_t i) const { return whole_[static_cast<size_t>(i)]; }

    // What 1 of a sum of weights times states is worth: states are multiples of 1 / 127.
    float scale() const { return static_cast<float>(unit_ / 127); }

   private:
    // Adding 1.5 * 2^52 leaves the nearest whole number in the low bits; a hundred million of these are done at load.
    static double rounded(double value) {
        value = (value + 6755399441055744.0) - 6755399441055744.0;
        return value > 127 ? 127 : value < -127 ? -127 : value;
    }

    double error(size_t i) const { return whole_[i] - weights_[i] / unit_; }

    void cancel() {
        double sum = 0;
        for (size_t i = 0; i < whole_.size(); i++) sum += error(i);
        const int8_t step = sum > 0 ? -1 : 1;
        for (double left = std::nearbyint(std::fabs(sum)); left > 0; left--) {
            size_t chosen = 0;
            double most = 0;
            for (size_t i = 0; i < whole_.size(); i++) {
                // Those that were cut are as near as they come, and those that have moved err in the other direction.
                if (whole_[i] != 127 * step && -step * error(i) > most) {
                    most = -step * error(i);
                    chosen = i;
                }
            }
            if (most == 0) return;
            whole_[chosen] = static_cast<int8_t>(whole_[chosen] + step);
        }
    }

    const float* weights_;
    std::vector<int8_t> whole_;
    double unit_ = 0;
};

// Packs `gates` gates of `from` [gates of the cell][hidden][columns.model], from gate `first` on, as kernels.hpp says; T is how
// weights are multiplied.
template <class T>
void pack(const float* from, int first, int gates, int64_t hidden, const Columns& columns, int lanes, PackedMatrix& to) {
    constexpr bool int8 = std::is_same_v<T, int8_t>;
    constexpr int together = 4 / static_cast<int>(sizeof(T));
    const int64_t panels = (hidden + lanes - 1) / lanes;
    const size_t rows = static_cast<size_t>(panels * gates * lanes), count = rows * static_cast<size_t>(columns.inputs);
    T* packed = to.values.room<T>(count);
    std::memset(static_cast<void*>(packed), 0, count * sizeof(T));
    float* scales = nullptr;
    int32_t* offsets = nullptr;
    if constexpr (int8) {
        scales = to.scales.room<float>(rows);
        offsets = to.offsets.room<int32_t>(rows);
        std::memset(scales, 0, rows * sizeof(float));
        std::memset(offsets, 0, rows * sizeof(int32_t));
    }
    for (int gate = 0; gate < gates; gate++) {
        for (int64_t j = 0; j < hidden; j++) {
            const float* row = from + ((first + gate) * hidden + j) * columns.model;
            const int64_t place = (j / lanes * gates + gate) * lanes + j % lanes;
            auto packed_at = [&](int64_t column) -> T& {
                const int64_t k = columns.place(column);
                const int64_t block = (j / lanes * (columns.inputs / together) + k / together) * gates + gate;
                return packed[(block * lanes + j % lanes) * together + k % together];
            };
            if constexpr (int8) {
                const Int8Row rounded(row, columns.model);
                scales[place] = rounded.scale();
                for (int64_t column = 0; column < columns.model; column++) {
                    const int8_t weight = packed_at(column) = rounded[column];
                    offsets[place] -= 128 * weight;
                }
            } else {
                for (int64_t column = 0; column < columns.model; column++) convert(row + column, 1, &packed_at(column));
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
    PackedMatrix input;      // W; empty where all products are in the table
    Buffer bias;             // of W x
    Buffer table;            // W emb + b of every id, in fp32
    PackedMatrix recurrent;  // R
    PackedMatrix candidate;  // R of the candidate of gru_reset_first
    Buffer candidate_bias;   // inside the reset product of gru

    size_t bytes() const {
        return input.bytes() + bias.bytes() + table.bytes() + recurrent.bytes() + candidate.bytes() + candidate_bias.bytes();
    }
};

}  // namespace birnn
