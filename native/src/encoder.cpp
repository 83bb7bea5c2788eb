#include "encoder.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace birnn {

namespace {

// Tokens that are worked on together, unless one row alone has more: what bounds the memory of a run. Fewer where input
// products are computed rather than looked up, so that these stay in the cache of the core.
constexpr int64_t TOKENS_TOGETHER = 4096, TOKENS_MULTIPLIED_TOGETHER = 512;
constexpr int64_t LARGEST_SIZE = 1 << 16;
constexpr int64_t LARGEST_VOCABULARY = 1 << 24;
constexpr int64_t MOST_LAYERS = 64;
// Within these bounds no size in bytes overflows: the largest are those of a table and of the products of all tokens.
static_assert(MOST_TOKENS <= INT64_MAX / (4 * 2 * LARGEST_SIZE * static_cast<int64_t>(sizeof(float))));
static_assert(LARGEST_VOCABULARY <= MOST_TOKENS);
// Nor does a sum of int8: most of all it has the states of both directions of the layer below.
static_assert(2 * LARGEST_SIZE <= MOST_INT8_INPUTS);

// In int8, a state that is no number would pass for one a step later. So weights and inputs are within bounds with which no
// float32 overflows: the products of the first layer, which are LARGEST_SUM at most, and a sum of as many weights as there may
// be.
constexpr float LARGEST_SUM = 1e36f, LARGEST_WEIGHT = 1e30f;

// What the first layer multiplies: in int8 it stays float32, for inputs have no scale that is known in advance.
template <class Operand>
using FirstOperand = std::conditional_t<std::is_same_v<Operand, int8_t>, float, Operand>;

void check_between(const char* what, int64_t value, int64_t least, int64_t most) {
    if (value < least || value > most) {
        throw std::invalid_argument(std::string(what) + " is " + std::to_string(value) + ", between " + std::to_string(least) +
                                    " and " + std::to_string(most) + " expected");
    }
}

void check_given(const char* what, const void* pointer) {
    if (!pointer) throw std::invalid_argument(std::string(what) + " is missing");
}

// The same model, where all of its sizes and pointers are as they should be: nothing is calculated with others.
const Model& checked(const Model& model) {
    check_between("the number of layers", model.layers, 1, MOST_LAYERS);
    check_between("the input size", model.input_size, 1, LARGEST_SIZE);
    check_between("the vocabulary", model.vocabulary, 0, LARGEST_VOCABULARY);
    check_between("the memory of a table", model.most_table_bytes, 0, INT64_MAX);
    check_given("the list of hidden sizes", model.hidden);
    check_given("the list W", model.W);
    check_given("the list R", model.R);
    check_given("the list B", model.B);
    for (int layer = 0; layer < model.layers; layer++) {
        check_between("a hidden size", model.hidden[layer], 1, LARGEST_SIZE);
        check_given("W of a layer", model.W[layer]);
        check_given("R of a layer", model.R[layer]);
    }
    if (model.vocabulary) {
        check_given("the embedding", model.embedding);
    } else if (model.embedding) {
        throw std::invalid_argument("there is an embedding, and a vocabulary of 0");
    }
    return model;
}

// How `kernels` multiply in that precision.
const Arithmetic& arithmetic_of(const Kernels& kernels, birnn_precision precision) {
    const Arithmetic& arithmetic = precision == BIRNN_INT8 ? kernels.int8 : precision == BIRNN_BF16 ? kernels.bf16 : kernels.fp32;
    if (!arithmetic.walk) {
        const char* name = precision == BIRNN_INT8 ? "int8" : precision == BIRNN_BF16 ? "bf16" : "fp32";
        throw std::invalid_argument(std::string(kernels.name) + " cannot multiply " + name);
    }
    return arithmetic;
}

std::string text(float value) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%g", static_cast<double>(value));
    return digits;
}

void check_weights(const char* what, const float* weights, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        if (!(std::fabs(weights[i]) <= LARGEST_WEIGHT)) {
            throw std::invalid_argument(std::string(what) + " holds " + text(weights[i]) +
                                        "; in int8 weights are finite, and 1e30 at most");
        }
    }
}

// Whether the model can be computed in int8; returns how large its inputs may be.
float check_int8(const Model& model) {
    if (model.cell == BIRNN_RNN_RELU) {
        throw std::invalid_argument(
            "int8 needs states between -1 and 1, and those of an RNN with relu have no bound; "
            "use bf16 or fp32");
    }
    const int64_t G = gates_of(model.cell);
    int64_t inputs = model.input_size;
    for (int layer = 0; layer < model.layers; layer++) {
        const int64_t H = model.hidden[layer], rows = 2 * G * H;
        check_weights("W", model.W[layer], rows * inputs);
        check_weights("R", model.R[layer], rows * H);
        if (model.B[layer]) check_weights("B", model.B[layer], 2 * rows);
        inputs = 2 * H;
    }
    float largest = 1;
    for (int64_t row = 0; row < 2 * G * model.hidden[0]; row++) {
        float sum = 0;
        for (int64_t i = 0; i < model.input_size; i++) sum += std::fabs(model.W[0][row * model.input_size + i]);
        largest = std::max(largest, sum);
    }
    return LARGEST_SUM / largest;
}

}  // namespace

// Some rows of a batch, the longest first, and where their tokens lie in a workspace.
struct Encoder::Rows {
    const int64_t* places;  // number in the batch
    int64_t count;
    std::vector<int64_t> lengths, bases, token_places;
    int64_t tokens = 0;

    Rows(const Batch& batch, const int64_t* places, int64_t count) : places(places), count(count) {
        for (int64_t row = 0; row < count; row++) {
            const int64_t first = batch.offsets[places[row]];
            lengths.push_back(batch.offsets[places[row] + 1] - first);
            token_places.push_back(first);
            bases.push_back(tokens);
            tokens += lengths.back();
        }
    }
};

struct Workspace {
    struct Direction {
        Buffer state[2], operand[2], cell_state, update, reset_state, reset_operand, products;
    };
    Direction directions[2];
    Buffer ids;        // of the tokens, where there is a table
    Buffer inputs[2];  // of the layers, as they are multiplied: one read, the other written
};

Encoder::Encoder(const Kernels& kernels, birnn_precision precision, const Model& model)
    : precision_(precision), arithmetic_(arithmetic_of(kernels, precision)), cell_(checked(model).cell),
      gates_(gates_of(model.cell)), layers_(model.layers), inputs_(model.input_size + model.input_size % 2),
      input_size_(model.input_size), vocabulary_(model.vocabulary) {
    for (int layer = 0; layer < layers_; layer++) sizes_.emplace_back(model.hidden[layer], arithmetic_.lanes);
    if (precision == BIRNN_INT8) {
        largest_input_ = check_int8(model);
        check_inputs(model.embedding, vocabulary_ * input_size_);
    }
    const int64_t table_bytes = 2 * vocabulary_ * gates_ * sizes_[0].padded * static_cast<int64_t>(sizeof(float));
    table_ = vocabulary_ && table_bytes <= model.most_table_bytes;
    weights_.resize(static_cast<size_t>(2 * layers_));
    switch (precision) {
        case BIRNN_INT8: pack_layers<int8_t>(model); break;
        case BIRNN_BF16: pack_layers<uint16_t>(model); break;
        default: pack_layers<float>(model);
    }
}

Encoder::~Encoder() = default;

template <class Operand>
void Encoder::pack_layers(const Model& model) {
    using First = FirstOperand<Operand>;
    const int lanes = arithmetic_.lanes;
    const int64_t G = gates_;
    Columns inputs{input_size_, input_size_, 0, inputs_};
    for (int layer = 0; layer < layers_; layer++) {
        const auto [H, padded, panels] = sizes_[static_cast<size_t>(layer)];
        const Columns recurrent{H, H, H, padded};
        std::vector<float> bias(static_cast<size_t>(G * H));
        for (int direction = 0; direction < 2; direction++) {
            DirectionWeights& weights = weights_[static_cast<size_t>(2 * layer + direction)];
            const float* W = model.W[layer] + direction * G * H * inputs.model;
            const float* R = model.R[layer] + direction * G * H * H;
            std::fill(bias.begin(), bias.end(), 0.0f);
            if (const float* B = model.B[layer]) {
                const float *of_input = B + direction * 2 * G * H, *of_state = of_input + G * H;
                for (int64_t i = 0; i < G * H; i++) bias[static_cast<size_t>(i)] = of_input[i];
                // The hidden bias of gru's candidate is reset, and cannot join the input's.
                const int64_t joined = cell_ == BIRNN_GRU ? 2 * H : G * H;
                for (int64_t i = 0; i < joined; i++) bias[static_cast<size_t>(i)] += of_state[i];
                if (cell_ == BIRNN_GRU) pack_bias(of_state + 2 * H, 1, H, lanes, weights.candidate_bias);
            } else if (cell_ == BIRNN_GRU) {
                pack_bias(bias.data(), 1, H, lanes, weights.candidate_bias);
            }
            pack_bias(bias.data(), gates_, H, lanes, weights.bias);
            if (cell_ == BIRNN_GRU_RESET_FIRST) {
                pack<Operand>(R, 0, 2, H, recurrent, lanes, weights.recurrent);
                pack<Operand>(R, 2, 1, H, recurrent, lanes, weights.candidate);
            } else {
                pack<Operand>(R, 0, gates_, H, recurrent, lanes, weights.recurrent);
            }
            if (layer == 0 && table_) {
                // Once and for all: so it may as well be in fp32.
                PackedMatrix W_fp32;
                Buffer ids;
                pack<float>(W, 0, gates_, H, inputs, lanes, W_fp32);
                float* embedding = ids.room<float>(static_cast<size_t>(vocabulary_ * inputs_));
                std::memset(embedding, 0, static_cast<size_t>(vocabulary_ * inputs_) * sizeof(float));
                for (int64_t id = 0; id < vocabulary_; id++) {
                    convert(model.embedding + id * input_size_, input_size_, embedding + id * inputs_);
                }
                float* table = weights.table.room<float>(static_cast<size_t>(vocabulary_ * G * padded));
                arithmetic_.product_fp32({gates_, panels, static_cast<int>(inputs_), W_fp32.matrix(),
                                          weights.bias.values<float>(), embedding, vocabulary_, table});
            } else if (layer == 0) {
                pack<First>(W, 0, gates_, H, inputs, lanes, weights.input);
            } else {
                pack<Operand>(W, 0, gates_, H, inputs, lanes, weights.input);
            }
        }
        inputs = {2 * H, H, padded, 2 * padded};
    }
    if (vocabulary_ && !table_) {
        First* embedding = embedding_.room<First>(static_cast<size_t>(vocabulary_ * inputs_));
        std::memset(static_cast<void*>(embedding), 0, static_cast<size_t>(vocabulary_ * inputs_) * sizeof(First));
        for (int64_t id = 0; id < vocabulary_; id++) {
            convert(model.embedding + id * input_size_, input_size_, embedding + id * inputs_);
        }
    }
}

size_t Encoder::bytes() const {
    size_t total = embedding_.bytes();
    for (const DirectionWeights& weights : weights_) total += weights.bytes();
    return total;
}

void Encoder::run(const Batch& batch, birnn_pooling pooling, int threads, float* out) {
    check_between("the number of rows", batch.rows, 1, INT32_MAX);
    check_between("the number of threads", threads, 1, 2);
    if (batch.offsets[0] != 0) throw std::invalid_argument("offsets must begin with 0");
    for (int64_t row = 0; row < batch.rows; row++) {
        // Compared before they are subtracted: whatever stands there, nothing overflows.
        check_between("an offset", batch.offsets[row + 1], batch.offsets[row] + 1, batch.tokens);
    }
    if (vocabulary_ ? !batch.ids : !batch.features) {
        throw std::invalid_argument(vocabulary_ ? "this encoder reads ids" : "this encoder reads features");
    }
    if (vocabulary_) {
        for (int64_t token = 0; token < batch.offsets[batch.rows]; token++) {
            check_between("an id", batch.ids[token], 0, vocabulary_ - 1);
        }
    } else if (precision_ == BIRNN_INT8) {
        check_inputs(batch.features, batch.offsets[batch.rows] * input_size_);
    }
    std::vector<int64_t> order(static_cast<size_t>(batch.rows));
    std::iota(order.begin(), order.end(), 0);
    auto length = [&](int64_t row) { return batch.offsets[row + 1] - batch.offsets[row]; };
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });

    const int64_t together = table_ && layers_ == 1 ? TOKENS_TOGETHER : TOKENS_MULTIPLIED_TOGETHER;
    std::unique_ptr<Workspace> work = borrow();
    for (int64_t first = 0; first < batch.rows;) {
        int64_t next = first, tokens = 0;
        do {
            tokens += length(order[static_cast<size_t>(next++)]);
        } while (next < batch.rows && tokens + length(order[static_cast<size_t>(next)]) <= together);
        const Rows rows(batch, order.data() + first, next - first);
        switch (precision_) {
            case BIRNN_INT8: run_rows<int8_t>(batch, rows, pooling, threads, out, *work); break;
            case BIRNN_BF16: run_rows<uint16_t>(batch, rows, pooling, threads, out, *work); break;
            default: run_rows<float>(batch, rows, pooling, threads, out, *work);
        }
        first = next;
    }
    give_back(std::move(work));
}

template <class Operand>
void Encoder::run_rows(const Batch& batch, const Rows& rows, birnn_pooling pooling, int threads, float* out, Workspace& work) {
    // Where states are multiplied in another type than they are kept in.
    constexpr bool converts = !std::is_same_v<Operand, float>;
    gather<FirstOperand<Operand>>(batch, rows, work);
    // Reserved here, by one thread and in the type that is multiplied: the walks only use it.
    auto wider = [](const LayerSize& a, const LayerSize& b) { return a.padded < b.padded; };
    const int64_t widest = std::max_element(sizes_.begin(), sizes_.end(), wider)->padded;
    const size_t states = static_cast<size_t>(rows.count * widest);
    for (Workspace::Direction& direction : work.directions) {
        for (int side = 0; side < 2; side++) {
            direction.state[side].room<float>(states);
            if (converts) direction.operand[side].room<Operand>(states);
        }
        if (cell_ == BIRNN_LSTM) direction.cell_state.room<float>(states);
        if (cell_ == BIRNN_GRU_RESET_FIRST) {
            direction.update.room<float>(states);
            direction.reset_state.room<float>(states);
            if (converts) direction.reset_operand.room<Operand>(states);
        }
        if (layers_ > 1 || !table_) direction.products.room<float>(static_cast<size_t>(rows.tokens * gates_ * widest));
    }
    for (int layer = 0; layer < layers_; layer++) {
        if (layer + 1 < layers_) {
            work.inputs[(layer + 1) & 1].room<Operand>(static_cast<size_t>(rows.tokens * inputs(layer + 1)));
        }
        auto forward = [&] { walk<Operand>(layer, 0, rows, pooling, out, work); };
        auto backward = [&] { walk<Operand>(layer, 1, rows, pooling, out, work); };
        if (threads > 1) {
            {
                std::lock_guard<std::mutex> lock(mutex_);
                if (!companion_) companion_ = std::make_unique<Companion>();
            }
            companion_->run(forward, backward);
        } else {
            forward();
            backward();
        }
    }
}

// Brings what the first layer reads into the workspace, in the order of `rows`.
template <class Operand>
void Encoder::gather(const Batch& batch, const Rows& rows, Workspace& work) {
    if (table_) {
        int32_t* ids = work.ids.room<int32_t>(static_cast<size_t>(rows.tokens));
        for (int64_t row = 0; row < rows.count; row++) {
            const size_t r = static_cast<size_t>(row);
            std::copy_n(batch.ids + rows.token_places[r], rows.lengths[r], ids + rows.bases[r]);
        }
        return;
    }
    Operand* inputs = work.inputs[0].room<Operand>(static_cast<size_t>(rows.tokens * inputs_));
    const Operand* embedding = embedding_.values<Operand>();
    for (int64_t row = 0; row < rows.count; row++) {
        const size_t r = static_cast<size_t>(row);
        for (int64_t step = 0; step < rows.lengths[r]; step++) {
            Operand* to = inputs + (rows.bases[r] + step) * inputs_;
            const int64_t token = rows.token_places[r] + step;
            if (vocabulary_) {
                std::copy_n(embedding + batch.ids[token] * inputs_, inputs_, to);
            } else {
                convert(batch.features + token * input_size_, input_size_, to);
                std::fill(to + input_size_, to + inputs_, Operand{});
            }
        }
    }
}

template <class Operand>
void Encoder::walk(int layer, int direction, const Rows& rows, birnn_pooling pooling, float* out, Workspace& work) {
    const DirectionWeights& weights = weights_[static_cast<size_t>(2 * layer + direction)];
    constexpr bool converts = !std::is_same_v<Operand, float>;
    Workspace::Direction& mine = work.directions[direction];
    const LayerSize& size = sizes_[static_cast<size_t>(layer)];
    Walk walk{};
    walk.cell = cell_;
    walk.backward = direction == 1;
    walk.hidden = static_cast<int>(size.hidden);
    walk.panels = size.panels;
    walk.recurrent = weights.recurrent.matrix();
    walk.candidate = weights.candidate.matrix();
    walk.candidate_bias = weights.candidate_bias.values<float>();
    walk.rows = static_cast<int>(rows.count);
    walk.lengths = rows.lengths.data();
    walk.bases = rows.bases.data();
    if (layer == 0 && table_) {
        walk.products = weights.table.values<float>();
        walk.index = work.ids.values<int32_t>();
    } else {
        float* products = mine.products.room<float>(0);
        const bool in_fp32 = layer == 0 && std::is_same_v<FirstOperand<Operand>, float>;
        (in_fp32 ? arithmetic_.product_fp32 : arithmetic_.product)(
            {gates_, size.panels, static_cast<int>(inputs(layer)), weights.input.matrix(), weights.bias.values<float>(),
             work.inputs[layer & 1].values<void>(), rows.tokens, products});
        walk.products = products;
    }
    for (int side = 0; side < 2; side++) {
        walk.state[side] = mine.state[side].room<float>(0);
        walk.operand[side] = converts ? static_cast<void*>(mine.operand[side].room<Operand>(0)) : walk.state[side];
    }
    walk.cell_state = mine.cell_state.room<float>(0);
    walk.update = mine.update.room<float>(0);
    walk.reset_state = mine.reset_state.room<float>(0);
    walk.reset_operand = converts ? static_cast<void*>(mine.reset_operand.room<Operand>(0)) : walk.reset_state;

    walk.places = rows.places;
    walk.token_places = rows.token_places.data();
    if (layer + 1 < layers_) {
        walk.next = work.inputs[(layer + 1) & 1].room<Operand>(0) + direction * size.padded;
        walk.next_stride = 2 * size.padded;
    } else {
        float* mine_of_out = out + direction * size.hidden;
        walk.pooled_stride = width(pooling);
        walk.steps_stride = 2 * size.hidden;
        if (pooling == BIRNN_FINAL) walk.last = mine_of_out;
        if (pooling == BIRNN_MEAN || pooling == BIRNN_MEAN_MAX) walk.mean = mine_of_out;
        if (pooling == BIRNN_MAX) walk.maximum = mine_of_out;
        if (pooling == BIRNN_MEAN_MAX) walk.maximum = mine_of_out + 2 * size.hidden;
        if (pooling == BIRNN_TOKENS) walk.steps = mine_of_out;
    }
    arithmetic_.walk(walk);
}

void Encoder::check_inputs(const float* values, int64_t count) const {
    for (int64_t i = 0; i < count; i++) {
        if (!(std::fabs(values[i]) <= largest_input_)) {
            throw std::invalid_argument("an input is " + text(values[i]) + "; in int8 this encoder reads up to " +
                                        text(largest_input_));
        }
    }
}

std::unique_ptr<Workspace> Encoder::borrow() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (resting_.empty()) return std::make_unique<Workspace>();
    std::unique_ptr<Workspace> work = std::move(resting_.back());
    resting_.pop_back();
    return work;
}

void Encoder::give_back(std::unique_ptr<Workspace> work) {
    std::lock_guard<std::mutex> lock(mutex_);
    resting_.push_back(std::move(work));
}

}  // namespace birnn
