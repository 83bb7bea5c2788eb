// The encoder with oneDNN's RNN primitives, as a shared library that `onednn_runner.py` loads: ids in, pooled vectors out.
//
// oneDNN's primitives read [T, B, C] and know no lengths. So a batch of one length runs as one bidirectional primitive a
// layer. For mixed lengths the rows of the backward direction are flipped, each within its own length, and both directions
// run on their own, padded at the end: exact, and what is padded is computed for nothing.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"

namespace {

using dnnl::memory;
using dnnl::rnn_direction;

enum Precision : int32_t { FLOAT32 = 0, BF16 = 1, INT8 = 2 };

// What int8 stands for: byte = round(value * scale) + SHIFT.
constexpr float SHIFT = 128.0F;

uint16_t bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

float from_bf16(uint16_t value) {
    uint32_t bits = static_cast<uint32_t>(value) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

uint8_t quantized(float value, float scale) {
    return static_cast<uint8_t>(std::min(255.0F, std::max(0.0F, std::nearbyintf(value * scale) + SHIFT)));
}

memory::data_type storage(Precision precision) {
    return precision == FLOAT32 ? memory::data_type::f32 : precision == BF16 ? memory::data_type::bf16 : memory::data_type::u8;
}

// One layer, both directions, as oneDNN lays it out.
struct LayerWeights {
    int64_t inputs;
    // [direction]: [inputs, gates, H], [H, gates, H], [bias gates, H]
    std::vector<float> input[2], state[2], bias[2];
    // int8: what its inputs and states are multiplied by.
    float scale;
};

// A primitive for one shape, with its weights packed and its memory.
struct Step {
    dnnl::primitive primitive;
    std::unordered_map<int, memory> arguments;
    memory source, destination;
};

// Weights in the forms that primitives wanted, and room for what goes in and comes out.
struct Shared {
    std::vector<std::pair<memory::desc, memory>> input, state;
    std::vector<uint8_t> source, destination;
};

struct Encoder {
    bool lstm;
    Precision precision;
    int64_t vocabulary, embedding_size, hidden;
    dnnl::engine engine{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream{engine};
    std::vector<uint8_t> table;
    std::vector<LayerWeights> layers;
    // By layer, direction, steps, rows.
    std::map<std::tuple<size_t, int, int64_t, int64_t>, Step> steps;
    // By layer and direction: what all shapes share, so that memory does not grow with their number.
    std::map<std::pair<size_t, int>, Shared> shared;

    int64_t gates() const { return lstm ? 4 : 3; }
    int64_t bias_gates() const { return 4; }
    size_t width() const { return memory::data_type_size(storage(precision)); }

    // What a layer writes: float32 in int8, as its consumer's scale is another one.
    memory::data_type written() const { return precision == BF16 ? memory::data_type::bf16 : memory::data_type::f32; }

    void store(float value, float scale, uint8_t* place) const {
        if (precision == FLOAT32) std::memcpy(place, &value, sizeof value);
        if (precision == INT8) *place = quantized(value, scale);
        if (precision == BF16) {
            uint16_t narrow = bf16(value);
            std::memcpy(place, &narrow, sizeof narrow);
        }
    }

    // direction: 0 forward, 1 backward by itself (on flipped rows), 2 both at once.
    Step& step(size_t layer, int direction, int64_t length, int64_t rows) {
        auto key = std::make_tuple(layer, direction, length, rows);
        auto found = steps.find(key);
        if (found == steps.end()) found = steps.emplace(key, make_step(layer, direction, length, rows)).first;
        Step& one = found->second;
        Shared& room = shared[{layer, direction}];
        place(one.source, room.source);
        place(one.destination, room.destination);
        return one;
    }

    static void place(memory& one, std::vector<uint8_t>& room) {
        if (room.size() < one.get_desc().get_size()) room.resize(one.get_desc().get_size());
        one.set_data_handle(room.data());
    }

    Step make_step(size_t layer, int direction, int64_t length, int64_t rows) {
        const LayerWeights& weights = layers[layer];
        Shared& kept = shared[{layer, direction}];
        using tag = memory::format_tag;
        const int64_t both = direction == 2 ? 2 : 1;
        const auto f32 = memory::data_type::f32;
        const auto weight_type = precision == INT8 ? memory::data_type::s8 : storage(precision);
        const auto how = direction == 2 ? rnn_direction::bidirectional_concat : rnn_direction::unidirectional_left2right;
        const memory::desc source({length, rows, weights.inputs}, storage(precision), tag::tnc);
        const memory::desc destination({length, rows, both * hidden}, written(), tag::tnc);
        const memory::desc input({1, both, weights.inputs, gates(), hidden}, weight_type, tag::any);
        const memory::desc state({1, both, hidden, gates(), hidden}, weight_type, tag::any);
        const memory::desc bias({1, both, bias_gates(), hidden}, f32, tag::ldgo);
        const memory::desc none;
        dnnl::primitive_attr attributes;
        if (precision == INT8) {
            attributes.set_rnn_data_qparams(weights.scale, SHIFT);
            // One scale an output of a gate; dimensions 3 and 4 of [layer, direction, input, gate, output].
            attributes.set_rnn_weights_qparams((1 << 3) + (1 << 4), weight_scales(weights, direction));
        }
        const auto inference = dnnl::prop_kind::forward_inference;
        Step made;
        memory::desc packed_input, packed_state;
        if (lstm) {
            dnnl::lstm_forward::primitive_desc kind(engine, inference, how, source, none, none, input, state, bias, destination,
                                                    none, none, attributes);
            made.primitive = dnnl::lstm_forward(kind);
            packed_input = kind.weights_layer_desc();
            packed_state = kind.weights_iter_desc();
        } else {
            dnnl::lbr_gru_forward::primitive_desc kind(engine, inference, how, source, none, input, state, bias, destination,
                                                       none, attributes);
            made.primitive = dnnl::lbr_gru_forward(kind);
            packed_input = kind.weights_layer_desc();
            packed_state = kind.weights_iter_desc();
        }
        made.source = memory(source, engine, nullptr);
        made.destination = memory(destination, engine, nullptr);
        made.arguments = {
            {DNNL_ARG_SRC_LAYER, made.source},
            {DNNL_ARG_DST_LAYER, made.destination},
            {DNNL_ARG_WEIGHTS_LAYER, pack(kept.input, weights.input, direction, weights.inputs, packed_input, attributes)},
            {DNNL_ARG_WEIGHTS_ITER, pack(kept.state, weights.state, direction, hidden, packed_state, attributes)},
            {DNNL_ARG_BIAS, plain({1, both, bias_gates(), hidden}, joined(weights.bias, direction), tag::ldgo)}};
        return made;
    }

    static std::vector<float> joined(const std::vector<float> (&parts)[2], int direction) {
        if (direction < 2) return parts[direction];
        std::vector<float> all = parts[0];
        all.insert(all.end(), parts[1].begin(), parts[1].end());
        return all;
    }

    // oneDNN takes one scale for both directions.
    std::vector<float> weight_scales(const LayerWeights& weights, int direction) const {
        std::vector<float> largest(static_cast<size_t>(gates() * hidden), 1e-6F);
        for (int one : {0, 1}) {
            if (direction != 2 && direction != one) continue;
            for (const auto* matrix : {&weights.input[one], &weights.state[one]})
                for (size_t at = 0; at < matrix->size(); ++at)
                    largest[at % largest.size()] = std::max(largest[at % largest.size()], std::fabs((*matrix)[at]));
        }
        for (float& scale : largest) scale = 127.0F / scale;
        return largest;
    }

    memory plain(const memory::dims& shape, const std::vector<float>& values, memory::format_tag tag) {
        memory made({shape, memory::data_type::f32, tag}, engine);
        std::memcpy(made.get_data_handle(), values.data(), values.size() * sizeof(float));
        return made;
    }

    memory pack(std::vector<std::pair<memory::desc, memory>>& known, const std::vector<float> (&parts)[2], int direction,
                int64_t inputs, const memory::desc& form, const dnnl::primitive_attr& attributes) {
        for (const auto& [other, packed] : known)
            if (other == form) return packed;
        memory loose =
            plain({1, direction == 2 ? 2 : 1, inputs, gates(), hidden}, joined(parts, direction), memory::format_tag::ldigo);
        memory packed(form, engine);
        dnnl::reorder(dnnl::reorder::primitive_desc(engine, loose.get_desc(), engine, form, attributes))
            .execute(stream, loose, packed);
        stream.wait();
        known.emplace_back(form, packed);
        return packed;
    }

    // Where row `row` of a flipped or plain sequence finds its token: position `t`, or its mirror within the length.
    static int64_t position(bool flipped, int64_t t, int64_t length) { return flipped && t < length ? length - 1 - t : t; }

    void embed(const int32_t* ids, const int64_t* offsets, int64_t rows, int64_t length, bool flipped, uint8_t* source) const {
        const size_t bytes = static_cast<size_t>(embedding_size) * width();
        for (int64_t t = 0; t < length; ++t)
            for (int64_t row = 0; row < rows; ++row) {
                const int64_t own = offsets[row + 1] - offsets[row];
                const int64_t id = t < own ? ids[offsets[row] + position(flipped, t, own)] : 0;
                std::memcpy(source + (t * rows + row) * bytes, table.data() + id * bytes, bytes);
            }
    }

    // What a layer wrote in direction `from` becomes what a direction of the next layer reads, both halves of each token.
    void hand_on(const Step& forward, const Step& backward, const int64_t* offsets, int64_t rows, int64_t length, bool flipped,
                 float scale, uint8_t* source) const {
        for (int half : {0, 1}) {
            const auto* read = static_cast<const uint8_t*>((half ? backward : forward).destination.get_data_handle());
            for (int64_t t = 0; t < length; ++t)
                for (int64_t row = 0; row < rows; ++row) {
                    const int64_t own = offsets[row + 1] - offsets[row];
                    const int64_t from = position(flipped != (half == 1), t, own);
                    copy_state(read, from * rows + row, source, (t * rows + row) * 2 + half, scale);
                }
        }
    }

    void copy_state(const uint8_t* read, int64_t from, uint8_t* source, int64_t to, float scale) const {
        const size_t count = static_cast<size_t>(hidden), size = memory::data_type_size(written());
        if (precision != INT8) {
            std::memcpy(source + to * count * size, read + from * count * size, count * size);
            return;
        }
        const auto* values = reinterpret_cast<const float*>(read) + from * count;
        for (size_t at = 0; at < count; ++at) source[to * count + at] = quantized(values[at], scale);
    }

    void run_step(Step& one) { one.primitive.execute(stream, one.arguments); }

    float value(const Step& one, int64_t at) const {
        const void* data = one.destination.get_data_handle();
        return precision == BF16 ? from_bf16(static_cast<const uint16_t*>(data)[at]) : static_cast<const float*>(data)[at];
    }

    void run_equal(const int32_t* ids, const int64_t* offsets, int64_t rows, int64_t length, float* pooled) {
        Step* one = nullptr;
        for (size_t layer = 0; layer < layers.size(); ++layer) {
            Step& next = step(layer, 2, length, rows);
            auto* source = static_cast<uint8_t*>(next.source.get_data_handle());
            if (one == nullptr) {
                embed(ids, offsets, rows, length, false, source);
            } else {
                const auto* read = static_cast<const uint8_t*>(one->destination.get_data_handle());
                for (int64_t at = 0; at < 2 * rows * length; ++at) copy_state(read, at, source, at, layers[layer].scale);
            }
            run_step(next);
            one = &next;
        }
        stream.wait();
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t last = offsets[row + 1] - offsets[row] - 1;
            for (int64_t at = 0; at < hidden; ++at) {
                pooled[row * 2 * hidden + at] = value(*one, (last * rows + row) * 2 * hidden + at);
                pooled[row * 2 * hidden + hidden + at] = value(*one, row * 2 * hidden + hidden + at);
            }
        }
    }

    void run_mixed(const int32_t* ids, const int64_t* offsets, int64_t rows, int64_t length, float* pooled) {
        Step *before[2] = {nullptr, nullptr}, *now[2];
        for (size_t layer = 0; layer < layers.size(); ++layer) {
            for (int direction : {0, 1}) {
                now[direction] = &step(layer, direction, length, rows);
                auto* source = static_cast<uint8_t*>(now[direction]->source.get_data_handle());
                if (layer == 0)
                    embed(ids, offsets, rows, length, direction == 1, source);
                else
                    hand_on(*before[0], *before[1], offsets, rows, length, direction == 1, layers[layer].scale, source);
                run_step(*now[direction]);
            }
            stream.wait();
            std::copy(now, now + 2, before);
        }
        for (int64_t row = 0; row < rows; ++row)
            for (int direction : {0, 1}) {
                const int64_t last = offsets[row + 1] - offsets[row] - 1;
                for (int64_t at = 0; at < hidden; ++at)
                    pooled[(row * 2 + direction) * hidden + at] = value(*now[direction], (last * rows + row) * hidden + at);
            }
    }
};

// Runs `work`; an exception becomes its message in `error`, and the result false.
template <typename Work>
bool guarded(char* error, int32_t size, Work work) {
    try {
        work();
        return true;
    } catch (const std::exception& problem) {
        std::snprintf(error, static_cast<size_t>(size), "%s", problem.what());
        return false;
    }
}

const float* take(std::vector<float>& into, const float* from, int64_t count) {
    into.assign(from, from + count);
    return from + count;
}

}  // namespace

extern "C" {

// "3.2.0"
void onednn_version(char* text, int32_t size) {
    const auto* version = dnnl::version();
    std::snprintf(text, static_cast<size_t>(size), "%d.%d.%d", version->major, version->minor, version->patch);
}

// An encoder, or null with the reason in `error`. `weights` holds, for each layer, forward before backward: the input's
// [inputs, gates, H], the state's [H, gates, H], the bias [4, H]. `largest` is the largest magnitude in the embedding.
void* onednn_create(int32_t lstm, int32_t precision, int64_t vocabulary, int64_t embedding_size, int64_t hidden, int64_t layers,
                    const float* embedding, float largest, const float* weights, char* error, int32_t size) {
    auto made = std::make_unique<Encoder>();
    const bool done = guarded(error, size, [&] {
        made->lstm = lstm != 0;
        made->precision = static_cast<Precision>(precision);
        made->vocabulary = vocabulary;
        made->embedding_size = embedding_size;
        made->hidden = hidden;
        const int64_t cells = made->gates() * hidden;
        for (int64_t layer = 0; layer < layers; ++layer) {
            LayerWeights one;
            one.inputs = layer == 0 ? embedding_size : 2 * hidden;
            // States lie between -1 and 1, and share the scale of the layer's input.
            one.scale = 127.0F / std::max(1.0F, layer == 0 ? largest : 1.0F);
            for (int direction : {0, 1}) {
                weights = take(one.input[direction], weights, one.inputs * cells);
                weights = take(one.state[direction], weights, hidden * cells);
                weights = take(one.bias[direction], weights, made->bias_gates() * hidden);
            }
            made->layers.push_back(std::move(one));
        }
        made->table.resize(static_cast<size_t>(vocabulary * embedding_size) * made->width());
        for (int64_t at = 0; at < vocabulary * embedding_size; ++at)
            made->store(embedding[at], made->layers[0].scale, made->table.data() + at * made->width());
        // Whether there is such a primitive at all shows here.
        made->step(0, 2, 1, 1);
    });
    return done ? made.release() : nullptr;
}

// Pooled vectors [rows, 2 H]. `equal` says that all rows have one length, or are to be taken as if they had.
int32_t onednn_run(void* encoder, const int32_t* ids, const int64_t* offsets, int64_t rows, int32_t equal, float* pooled,
                   char* error, int32_t size) {
    auto* one = static_cast<Encoder*>(encoder);
    return guarded(error, size, [&] {
        int64_t length = 0;
        for (int64_t row = 0; row < rows; ++row) length = std::max(length, offsets[row + 1] - offsets[row]);
        if (equal)
            one->run_equal(ids, offsets, rows, length, pooled);
        else
            one->run_mixed(ids, offsets, rows, length, pooled);
    });
}

void onednn_free(void* encoder) { delete static_cast<Encoder*>(encoder); }
}
