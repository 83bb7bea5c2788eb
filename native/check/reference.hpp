// Bidirectional recurrences in double, one sequence and one step at a time, written from the equations; of these nothing is
// shared with the kernels. With `int8` set, weights and states are rounded as kernels.hpp says before they are multiplied, and
// all else stays as it is.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "birnn.h"

namespace reference {

using Sequence = std::vector<std::vector<double>>;  // [steps][values]

// Weights of one direction of one layer in the layout of the ONNX operators, gates in their order; without biases `B` is null.
struct Direction {
    int cell;
    int64_t gates, hidden, inputs;
    const float *W, *R, *B;
    bool int8_inputs, int8_states;

    double input_bias(int64_t row) const { return B ? B[row] : 0.0; }
    double state_bias(int64_t row) const { return B ? B[gates * hidden + row] : 0.0; }
};

inline double dot(const float* weights, const std::vector<double>& values) {
    double sum = 0;
    for (size_t i = 0; i < values.size(); i++) sum += weights[i] * values[i];
    return sum;
}

// A row of weights in int8: multiples of a 127th of 60 to 100 % of the largest, whichever errs least in squares; then of those
// that were rounded away from where all errors together lie, the worst are rounded the other way until they cancel out.
struct Int8Row {
    std::vector<int64_t> whole;
    double unit = 1;

    Int8Row(const float* weights, size_t count) : whole(count) {
        double largest = 0, least = -1;
        for (size_t i = 0; i < count; i++) largest = std::max(largest, std::abs(static_cast<double>(weights[i])));
        if (largest == 0) return;
        for (int percent = 100; percent >= 60; percent--) {
            const double candidate = largest * percent / 12700;
            double squares = 0;
            for (size_t i = 0; i < count; i++) squares += std::pow(nearest(weights[i], candidate) * candidate - weights[i], 2);
            if (least < 0 || squares < least) {
                least = squares;
                unit = candidate;
            }
        }
        std::vector<std::pair<double, size_t>> errors;
        double sum = 0;
        for (size_t i = 0; i < count; i++) {
            whole[i] = nearest(weights[i], unit);
            errors.emplace_back(static_cast<double>(whole[i]) - weights[i] / unit, i);
            sum += errors.back().first;
        }
        const int64_t sign = sum > 0 ? 1 : -1;
        std::stable_sort(errors.begin(), errors.end(),
                         [&](const auto& a, const auto& b) { return static_cast<double>(sign) * (a.first - b.first) > 0; });
        auto change = std::lrint(std::abs(sum));
        for (const auto& [error, i] : errors) {
            if (!change || static_cast<double>(sign) * error <= 0) break;
            if (whole[i] == -127 * sign) continue;
            whole[i] -= sign;
            change--;
        }
    }

    static int64_t nearest(double weight, double unit) { return std::clamp(std::lrint(weight / unit), -127l, 127l); }
};

// A row of weights times states, which are multiples of 1 / 127, in int8.
inline double int8_dot(const float* weights, const std::vector<double>& states) {
    const Int8Row row(weights, states.size());
    int64_t sum = 0;
    for (size_t i = 0; i < states.size(); i++) sum += row.whole[i] * std::lrint(127.0f * static_cast<float>(states[i]));
    return static_cast<double>(sum) * row.unit / 127;
}

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// The state after one more step; `c` is the cell state of lstm.
inline std::vector<double> step(const Direction& direction, const std::vector<double>& x, const std::vector<double>& h,
                                std::vector<double>& c) {
    const int64_t H = direction.hidden;
    auto input = [&](int64_t row) {
        const float* weights = direction.W + row * direction.inputs;
        return (direction.int8_inputs ? int8_dot(weights, x) : dot(weights, x)) + direction.input_bias(row);
    };
    auto state = [&](int64_t row, const std::vector<double>& of) {
        const float* weights = direction.R + row * H;
        return (direction.int8_states ? int8_dot(weights, of) : dot(weights, of)) + direction.state_bias(row);
    };
    auto both = [&](int64_t gate, int64_t j) { return input(gate * H + j) + state(gate * H + j, h); };
    std::vector<double> reset(h), next(h);
    if (direction.cell == BIRNN_GRU_RESET_FIRST) {
        for (int64_t j = 0; j < H; j++) reset[static_cast<size_t>(j)] *= sigmoid(both(1, j));
    }
    for (int64_t j = 0; j < H; j++) {
        const size_t at = static_cast<size_t>(j);
        if (direction.cell == BIRNN_GRU || direction.cell == BIRNN_GRU_RESET_FIRST) {
            const double z = sigmoid(both(0, j));
            const double recurrent =
                direction.cell == BIRNN_GRU ? sigmoid(both(1, j)) * state(2 * H + j, h) : state(2 * H + j, reset);
            next[at] = (1 - z) * std::tanh(input(2 * H + j) + recurrent) + z * h[at];
        } else if (direction.cell == BIRNN_LSTM) {
            c[at] = sigmoid(both(2, j)) * c[at] + sigmoid(both(0, j)) * std::tanh(both(3, j));
            next[at] = sigmoid(both(1, j)) * std::tanh(c[at]);
        } else {
            next[at] = direction.cell == BIRNN_RNN_TANH ? std::tanh(both(0, j)) : std::max(both(0, j), 0.0);
        }
    }
    return next;
}

// All states of one direction over a sequence, in the order of the sequence.
inline Sequence walk(const Direction& direction, const Sequence& inputs, bool backward) {
    Sequence states(inputs.size());
    std::vector<double> h(static_cast<size_t>(direction.hidden)), c(h);
    for (size_t number = 0; number < inputs.size(); number++) {
        const size_t at = backward ? inputs.size() - 1 - number : number;
        h = states[at] = step(direction, inputs[at], h, c);
    }
    return states;
}

// One layer: the states of both directions side by side.
inline Sequence layer(const Direction& forward, const Direction& backward, const Sequence& inputs) {
    Sequence states = walk(forward, inputs, false);
    const Sequence others = walk(backward, inputs, true);
    for (size_t at = 0; at < states.size(); at++) states[at].insert(states[at].end(), others[at].begin(), others[at].end());
    return states;
}

// What the library makes of the states of the last layer; `pooling` is one of birnn_pooling.
inline std::vector<double> pooled(const Sequence& states, int pooling) {
    const size_t width = states[0].size();
    std::vector<double> mean(width), maximum(states[0]), result;
    for (const std::vector<double>& state : states) {
        for (size_t j = 0; j < width; j++) {
            mean[j] += state[j] / static_cast<double>(states.size());
            maximum[j] = std::max(maximum[j], state[j]);
        }
        if (pooling == BIRNN_TOKENS) result.insert(result.end(), state.begin(), state.end());
    }
    if (pooling == BIRNN_FINAL) {
        result = states.back();
        std::copy(states[0].begin() + static_cast<int64_t>(width / 2), states[0].end(),
                  result.begin() + static_cast<int64_t>(width / 2));
    }
    if (pooling == BIRNN_MEAN || pooling == BIRNN_MEAN_MAX) result = mean;
    if (pooling == BIRNN_MAX || pooling == BIRNN_MEAN_MAX) result.insert(result.end(), maximum.begin(), maximum.end());
    return result;
}

}  // namespace reference
