// Bidirectional recurrences in double, one sequence and one step at a time, written from the equations; of these nothing is
// shared with the kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "birnn.h"

namespace reference {

using Sequence = std::vector<std::vector<double>>;  // [steps][values]

// Weights of one direction of one layer in the layout of the ONNX operators, gates in their order; without biases `B` is null.
struct Direction {
    int cell;
    int64_t gates, hidden, inputs;
    const float *W, *R, *B;

    double input_bias(int64_t row) const { return B ? B[row] : 0.0; }
    double state_bias(int64_t row) const { return B ? B[gates * hidden + row] : 0.0; }
};

inline double dot(const float* weights, const std::vector<double>& values) {
    double sum = 0;
    for (size_t i = 0; i < values.size(); i++) sum += weights[i] * values[i];
    return sum;
}

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// The state after one more step; `c` is the cell state of lstm.
inline std::vector<double> step(const Direction& direction, const std::vector<double>& x, const std::vector<double>& h,
                                std::vector<double>& c) {
    const int64_t H = direction.hidden;
    auto input = [&](int64_t row) { return dot(direction.W + row * direction.inputs, x) + direction.input_bias(row); };
    auto state = [&](int64_t row, const std::vector<double>& of) {
        return dot(direction.R + row * H, of) + direction.state_bias(row);
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
