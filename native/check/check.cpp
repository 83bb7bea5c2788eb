// Drives the kernels with good and hostile input, to be built with sanitizers: `make native-check`.
//
//   check SEED CASES   random encoders of all cells and sizes, random batches, some of either damaged; every buffer on the heap
//                      and exactly as large as promised, so that AddressSanitizer sees the first byte beyond it; one row of each
//                      batch that is encoded must agree with the equations, and to the bit with itself alone
//   check agree CASES  random batches in int8 on every instruction set, which must give the same bits; prints a digest of them,
//   which
//                      must be the same on every processor
//   check threads      many threads on one encoder, whose results must be those of one thread

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "birnn.h"
#include "reference.hpp"

namespace {

using Random = std::mt19937_64;

int64_t between(Random& random, int64_t least, int64_t most) {
    return std::uniform_int_distribution<int64_t>(least, most)(random);
}

std::vector<float> floats(Random& random, int64_t count) {
    std::uniform_real_distribution<float> uniform(-0.1f, 0.1f);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = uniform(random);
    return values;
}

void fail(const std::string& what) {
    std::fprintf(stderr, "FAILED: %s\n", what.c_str());
    std::exit(1);
}

std::vector<std::string> instruction_sets() {
    char names[256];
    birnn_instruction_sets(names, sizeof names);
    std::vector<std::string> sets(1);
    for (const char* letter = names; *letter; letter++) {
        if (*letter == ',') {
            sets.emplace_back();
        } else {
            sets.back() += *letter;
        }
    }
    return sets;
}

// What birnn_create is given: all of it random, and as it should be.
struct Model {
    std::string instruction_set;
    bool can_bf16;
    int32_t precision, cell, layers;
    std::vector<int64_t> hidden;
    int64_t gates, inputs, vocabulary, most_table_bytes;
    std::vector<float> embedding;
    std::vector<std::vector<float>> arrays;
    std::vector<const float*> W, R, B;

    Model(Random& random, const std::vector<std::string>& sets) {
        const std::string name = sets[static_cast<size_t>(between(random, 0, static_cast<int64_t>(sets.size()) - 1))];
        can_bf16 = name.find("+bf16") != std::string::npos;
        instruction_set = name.substr(0, name.find('+'));
        cell = static_cast<int32_t>(between(random, BIRNN_GRU, BIRNN_RNN_RELU));
        precision = static_cast<int32_t>(between(random, BIRNN_FP32, BIRNN_INT8));
        const bool can = precision == BIRNN_BF16 ? can_bf16 : precision != BIRNN_INT8 || cell != BIRNN_RNN_RELU;
        if (!can) precision = BIRNN_FP32;
        layers = static_cast<int32_t>(between(random, 1, 3));
        gates = birnn_gates(cell);
        inputs = between(random, 1, 20);
        vocabulary = between(random, 0, 3) ? between(random, 1, 30) : 0;
        most_table_bytes = between(random, 0, 1) << 20;
        const bool bias = between(random, 0, 1);
        for (int32_t layer = 0; layer < layers; layer++) {
            hidden.push_back(between(random, 1, 40));
            const int64_t rows = 2 * gates * hidden.back();
            for (int64_t size : {rows * read(layer), rows * hidden.back(), 2 * rows}) arrays.push_back(floats(random, size));
        }
        for (size_t array = 0; array < arrays.size(); array += 3) {
            W.push_back(arrays[array].data());
            R.push_back(arrays[array + 1].data());
            B.push_back(bias ? arrays[array + 2].data() : nullptr);
        }
        embedding = floats(random, vocabulary * inputs);
    }

    Model(const Model&) = delete;

    // Values that a layer reads.
    int64_t read(int32_t layer) const { return layer ? 2 * hidden[static_cast<size_t>(layer) - 1] : inputs; }
    int64_t width(int32_t pooling) const { return hidden.back() * (pooling == BIRNN_MEAN_MAX ? 4 : 2); }

    // What the equations make of one sequence.
    std::vector<double> expected(reference::Sequence states, int32_t pooling) const {
        for (int32_t layer = 0; layer < layers; layer++) {
            const size_t at = static_cast<size_t>(layer);
            const int64_t H = hidden[at], I = read(layer);
            const bool int8 = precision == BIRNN_INT8;
            auto direction = [&](int64_t number) {
                const float* biases = B[at] ? B[at] + number * 2 * gates * H : nullptr;
                return reference::Direction{
                    cell, gates, H, I, W[at] + number * gates * H * I, R[at] + number * gates * H * H, biases, int8 && layer > 0,
                    int8};
            };
            states = reference::layer(direction(0), direction(1), states);
        }
        return reference::pooled(states, pooling);
    }
};

// The arguments of birnn_create, any of which may be damaged.
struct Creation {
    const char* instruction_set;
    int32_t precision, cell, layers;
    const int64_t* hidden;
    int64_t inputs, vocabulary;
    const float* embedding;
    const float *const *W, *const *R, *const *B;
    int64_t most_table_bytes;

    explicit Creation(const Model& model)
        : instruction_set(model.instruction_set.c_str()), precision(model.precision), cell(model.cell), layers(model.layers),
          hidden(model.hidden.data()), inputs(model.inputs), vocabulary(model.vocabulary),
          embedding(model.vocabulary ? model.embedding.data() : nullptr), W(model.W.data()), R(model.R.data()), B(model.B.data()),
          most_table_bytes(model.most_table_bytes) {}

    birnn_encoder* run(char* error, size_t error_size) const {
        return birnn_create(instruction_set, precision, cell, layers, hidden, inputs, vocabulary, embedding, W, R, B,
                            most_table_bytes, error, error_size);
    }
};

// A number that is none between `least`, 0 or 1, and `most`: often one with which calculations overflow.
int64_t beyond(Random& random, int64_t least, int64_t most) {
    const int64_t extremes[] = {INT64_MIN,     INT64_MIN + 1,  -1,       least - 1, most + 1, INT64_MAX / 8, INT64_MAX / 2,
                                INT64_MAX - 1, INT64_MAX - 16, INT64_MAX};
    switch (between(random, 0, 3)) {
        case 0: return between(random, INT64_MIN, least - 1);
        case 1: return between(random, most + 1, INT64_MAX);
        default: return extremes[between(random, 0, 9)];
    }
}

// A weight that int8 refuses.
float no_weight(Random& random) {
    const float values[] = {NAN, INFINITY, -INFINITY, 1.1e30f};
    return values[between(random, 0, 3)];
}

// Whatever is wrong with what birnn_create is given, it says so and does nothing: no pointer leads to as much as is claimed.
void check_creation(Random& random, const std::vector<std::string>& sets) {
    const Model model(random, sets);
    Creation creation(model);
    const size_t layer = static_cast<size_t>(between(random, 0, model.layers - 1));
    std::vector<int64_t> hidden = model.hidden;
    std::vector<const float*> W = model.W, R = model.R;
    std::vector<std::vector<float>> wrong;  // several may be pointed to
    const float something = 0;
    for (int64_t damages = between(random, 1, 3); damages; damages--) {
        switch (between(random, 0, 16)) {
            case 0: creation.instruction_set = between(random, 0, 1) ? nullptr : "mmx"; break;
            case 1: creation.cell = static_cast<int32_t>(between(random, 5, INT32_MAX)) * (between(random, 0, 1) ? 1 : -1); break;
            case 2: creation.layers = static_cast<int32_t>(between(random, 65, INT32_MAX)); break;
            case 3: creation.layers = static_cast<int32_t>(between(random, INT32_MIN, 0)); break;
            case 4:
                hidden[layer] = beyond(random, 1, 1 << 16);
                creation.hidden = hidden.data();
                break;
            case 5: creation.inputs = beyond(random, 1, 1 << 16); break;
            case 6: creation.vocabulary = beyond(random, 0, 1 << 24); break;
            case 7: creation.most_table_bytes = between(random, INT64_MIN, -1); break;
            case 8: creation.embedding = model.vocabulary ? nullptr : &something; break;
            case 9: creation.hidden = nullptr; break;
            case 10: creation.W = nullptr; break;
            case 11: creation.R = nullptr; break;
            case 12: creation.B = nullptr; break;
            case 13: creation.precision = between(random, 0, 1) ? INT32_MIN : BIRNN_INT8 + 1; break;
            case 14:
                creation.precision = BIRNN_INT8;
                creation.cell = BIRNN_RNN_RELU;
                break;
            case 15: {
                creation.precision = BIRNN_INT8;
                const bool recurrent = between(random, 0, 1);
                std::vector<float>& weights = wrong.emplace_back(model.arrays[3 * layer + recurrent]);
                weights[static_cast<size_t>(between(random, 0, static_cast<int64_t>(weights.size()) - 1))] = no_weight(random);
                (recurrent ? R : W)[layer] = weights.data();
                creation.W = W.data();
                creation.R = R.data();
                break;
            }
            default:
                (between(random, 0, 1) ? W : R)[layer] = nullptr;
                creation.W = W.data();
                creation.R = R.data();
        }
    }
    // Room for the whole reason, for a part of it, or none.
    std::vector<char> error(static_cast<size_t>(between(random, 0, 3) ? 256 : between(random, 0, 8)));
    if (creation.run(error.empty() ? nullptr : error.data(), error.size())) fail("a damaged encoder was made");
    if (error.size() > 1 && !error[0]) fail("a refusal without a reason");
}

// An encoder of a random model.
struct Subject : Model {
    birnn_encoder* encoder;

    Subject(Random& random, const std::vector<std::string>& sets) : Model(random, sets) { create(); }

    // The same model in int8.
    Subject(Random& random, const std::string& set) : Model(random, {set}) {
        precision = BIRNN_INT8;
        if (cell == BIRNN_RNN_RELU) cell = BIRNN_RNN_TANH;
        create();
    }

    void create() {
        char error[256];
        encoder = Creation(*this).run(error, sizeof error);
        if (!encoder) fail(std::string("an encoder was refused: ") + error);
        if (birnn_bytes(encoder) <= 0) fail("an encoder without weights");
    }

    ~Subject() { birnn_destroy(encoder); }
};

struct Batch {
    std::vector<int64_t> offsets{0};
    std::vector<int32_t> ids;
    std::vector<float> features;

    Batch() = default;

    Batch(Random& random, const Subject& subject) {
        const int64_t rows = between(random, 1, 40);
        for (int64_t row = 0; row < rows; row++) offsets.push_back(offsets.back() + between(random, 1, 25));
        if (subject.vocabulary) {
            for (int64_t token = 0; token < offsets.back(); token++) {
                ids.push_back(static_cast<int32_t>(between(random, 0, subject.vocabulary - 1)));
            }
        } else {
            features = floats(random, offsets.back() * subject.inputs);
        }
    }

    int64_t rows() const { return static_cast<int64_t>(offsets.size()) - 1; }
    int64_t tokens() const { return offsets.back(); }

    // What the first layer reads of one row.
    reference::Sequence row(const Subject& subject, size_t number) const {
        reference::Sequence inputs;
        for (int64_t token = offsets[number]; token < offsets[number + 1]; token++) {
            const float* from = ids.empty() ? features.data() + token * subject.inputs
                                            : subject.embedding.data() + ids[static_cast<size_t>(token)] * subject.inputs;
            inputs.emplace_back(from, from + subject.inputs);
        }
        return inputs;
    }

    Batch alone(const Subject& subject, size_t number) const {
        const int64_t first = offsets[number], end = offsets[number + 1];
        Batch batch;
        batch.offsets.push_back(end - first);
        if (!ids.empty()) batch.ids.assign(ids.begin() + first, ids.begin() + end);
        if (!features.empty())
            batch.features.assign(features.begin() + first * subject.inputs, features.begin() + end * subject.inputs);
        return batch;
    }
};

// The arguments of birnn_run, any of which may be damaged.
struct Call {
    Batch batch;
    int64_t tokens, rows;
    int32_t pooling, threads;
    std::vector<float> out;
    bool offsets = true;

    Call(const Subject& subject, const Batch& of, int32_t pooling, int32_t threads)
        : batch(of), tokens(of.tokens()), rows(of.rows()), pooling(pooling), threads(threads),
          out(static_cast<size_t>((pooling == BIRNN_TOKENS ? tokens : rows) * subject.width(pooling))) {}

    // Whether the batch was encoded.
    bool run(birnn_encoder* encoder) {
        char error[256] = "";
        const bool done = birnn_run(encoder, batch.ids.empty() ? nullptr : batch.ids.data(),
                                    batch.features.empty() ? nullptr : batch.features.data(), tokens,
                                    offsets ? batch.offsets.data() : nullptr, rows, pooling, threads,
                                    out.empty() ? nullptr : out.data(), static_cast<int64_t>(out.size()), error, sizeof error);
        if (!done && !*error) fail("a refusal without a reason");
        return done;
    }
};

// Damages a call; false where nothing was to be damaged.
bool damage(Random& random, const Subject& subject, Call& call) {
    Batch& batch = call.batch;
    const size_t row = static_cast<size_t>(between(random, 0, batch.rows()));
    const int64_t extremes[] = {INT64_MIN, -1, 0, 1, INT32_MAX, INT64_MAX / 8, INT64_MAX};
    const int64_t extreme = extremes[between(random, 0, 6)];
    switch (between(random, 0, 9)) {
        case 0:
            if (batch.offsets[row] == extreme) return false;
            batch.offsets[row] = extreme;
            // In the middle, an offset may move without harm.
            return row == 0 || row + 1 == batch.offsets.size() || extreme <= batch.offsets[row - 1] ||
                   extreme >= batch.offsets[row + 1];
        case 1:
            if (call.tokens == extreme) return false;
            call.tokens = extreme;
            return true;
        case 2:
            if (batch.ids.empty()) return false;
            batch.ids[static_cast<size_t>(between(random, 0, call.tokens - 1))] =
                static_cast<int32_t>(between(random, 0, 1) ? INT32_MIN : subject.vocabulary);
            return true;
        case 3: call.out.resize(between(random, 0, 1) ? call.out.size() - 1 : 0); return true;
        case 4:
            if (call.rows == extreme) return false;
            call.rows = extreme;
            return true;
        case 5: call.pooling = static_cast<int32_t>(between(random, BIRNN_TOKENS + 1, INT32_MAX)); return true;
        case 6:
            call.threads =
                static_cast<int32_t>(between(random, 0, 1) ? between(random, 3, INT32_MAX) : between(random, INT32_MIN, 0));
            return true;
        case 7: call.offsets = false; return true;
        case 8:
            if (subject.precision != BIRNN_INT8 || batch.features.empty()) return false;
            batch.features[static_cast<size_t>(between(random, 0, call.tokens * subject.inputs - 1))] =
                between(random, 0, 1) ? NAN : 1e37f;
            return true;
        default:
            batch.ids.clear();
            batch.features.clear();
            return true;
    }
}

// Compares the encoding of a random row with the equations, and with its encoding where there is no other row.
void check_row(Random& random, const Subject& subject, const Call& call) {
    const size_t row = static_cast<size_t>(between(random, 0, call.rows - 1));
    const std::vector<double> expected = subject.expected(call.batch.row(subject, row), call.pooling);
    const size_t place = call.pooling == BIRNN_TOKENS ? static_cast<size_t>(call.batch.offsets[row] * subject.width(call.pooling))
                                                      : row * expected.size();
    const float* found = call.out.data() + place;
    // In int8 a state beside a tie may be rounded the other way than here, by a 127th of a weight.
    const double tolerance = subject.precision == BIRNN_FP32 ? 2e-6 : subject.precision == BIRNN_BF16 ? 1e-2 : 2e-3;
    for (size_t j = 0; j < expected.size(); j++) {
        if (!(std::abs(found[j] - expected[j]) <= tolerance * (1 + std::abs(expected[j])))) {
            fail("an encoding holds " + std::to_string(found[j]) + " where the equations give " + std::to_string(expected[j]));
        }
    }
    Call alone(subject, call.batch.alone(subject, row), call.pooling, 1);
    if (!alone.run(subject.encoder)) fail("a good batch was refused");
    if (std::memcmp(alone.out.data(), found, alone.out.size() * sizeof(float))) fail("a row depends on its neighbors");
}

void check_cases(uint64_t seed, int64_t cases) {
    const std::vector<std::string> sets = instruction_sets();
    Random random(seed);
    int64_t encoded = 0, refused = 0, creations = 0;
    while (encoded + refused < cases) {
        for (int repeat = 0; repeat < 8; repeat++, creations++) check_creation(random, sets);
        const Subject subject(random, sets);
        for (int repeat = 0; repeat < 8; repeat++) {
            const int32_t pooling = static_cast<int32_t>(between(random, BIRNN_FINAL, BIRNN_TOKENS));
            Call call(subject, Batch(random, subject), pooling, static_cast<int32_t>(between(random, 1, 2)));
            const bool damaged = between(random, 0, 1) && damage(random, subject, call);
            const bool done = call.run(subject.encoder);
            if (done == damaged) fail(damaged ? "a damaged batch was encoded" : "a good batch was refused");
            for (float value : call.out) {
                if (done && !(value > -1e6f && value < 1e6f)) fail("an encoding is not finite");
            }
            // A batch that is damaged but was encoded is one whose offsets moved without harm.
            if (done) check_row(random, subject, call);
            (done ? encoded : refused)++;
        }
    }
    char error[256];
    if (birnn_run(nullptr, nullptr, nullptr, 1, nullptr, 1, 0, 1, nullptr, 1, error, sizeof error)) fail("no encoder ran");
    if (birnn_bytes(nullptr)) fail("no encoder has weights");
    birnn_destroy(nullptr);
    std::printf("seed %llu: %lld batches encoded, %lld refused; %lld damaged encoders refused\n",
                static_cast<unsigned long long>(seed), static_cast<long long>(encoded), static_cast<long long>(refused),
                static_cast<long long>(creations));
}

// Random models and batches in int8: whatever the instruction set, the bits must be those of the first one.
void check_agreement(int64_t cases) {
    const std::vector<std::string> sets = instruction_sets();
    uint64_t digest = 14695981039346656037u;
    for (int64_t number = 0; number < cases; number++) {
        std::vector<float> first;
        for (const std::string& set : sets) {
            // Begun anew, to draw the same.
            Random random(static_cast<uint64_t>(number));
            const Subject subject(random, set.substr(0, set.find('+')));
            const int32_t pooling = static_cast<int32_t>(between(random, BIRNN_FINAL, BIRNN_TOKENS));
            // One by one: compilers differ in the order in which they evaluate arguments.
            const int32_t number_of_threads = static_cast<int32_t>(between(random, 1, 2));
            const Batch batch(random, subject);
            Call call(subject, batch, pooling, number_of_threads);
            if (!call.run(subject.encoder)) fail("a good batch was refused");
            if (first.empty()) first = call.out;
            if (first.size() != call.out.size() || std::memcmp(first.data(), call.out.data(), first.size() * sizeof(float))) {
                fail(set + " gives other bits than " + sets[0] + " in case " + std::to_string(number));
            }
        }
        // FNV-1a over the bits.
        for (float value : first) {
            uint32_t bits;
            std::memcpy(&bits, &value, sizeof bits);
            digest = (digest ^ bits) * 1099511628211u;
        }
    }
    std::printf("int8: %lld batches have the same bits on", static_cast<long long>(cases));
    for (const std::string& set : sets) std::printf(" %s", set.substr(0, set.find('+')).c_str());
    std::printf("; digest %016llx\n", static_cast<unsigned long long>(digest));
}

void check_threads() {
    const std::vector<std::string> sets = instruction_sets();
    for (uint64_t seed = 0; seed < 20; seed++) {
        Random random(seed);
        const Subject subject(random, sets);
        const Batch batch(random, subject);
        Call expected(subject, batch, BIRNN_TOKENS, 1);
        if (!expected.run(subject.encoder)) fail("a good batch was refused");
        std::vector<std::thread> threads;
        for (int number = 0; number < 4; number++) {
            threads.emplace_back([&, number] {
                for (int repeat = 0; repeat < 20; repeat++) {
                    Call call(subject, batch, BIRNN_TOKENS, 1 + number % 2);
                    if (!call.run(subject.encoder)) fail("a good batch was refused");
                    if (std::memcmp(call.out.data(), expected.out.data(), call.out.size() * sizeof(float))) {
                        fail("threads disagree");
                    }
                }
            });
        }
        for (std::thread& thread : threads) thread.join();
    }
    std::printf("threads agree\n");
}

}  // namespace

int main(int count, char** arguments) {
    if (count == 2 && !std::strcmp(arguments[1], "threads")) {
        check_threads();
    } else if (count == 3 && !std::strcmp(arguments[1], "agree")) {
        check_agreement(std::strtoll(arguments[2], nullptr, 10));
    } else if (count == 3) {
        check_cases(std::strtoull(arguments[1], nullptr, 10), std::strtoll(arguments[2], nullptr, 10));
    } else {
        fail("usage: check SEED CASES | check agree CASES | check threads");
    }
    return 0;
}
