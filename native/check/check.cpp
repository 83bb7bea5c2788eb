// Drives the kernels with good and hostile input, to be built with sanitizers: `make native-check`.
//
//   check SEED CASES   random encoders of all cells and sizes, random batches, some of them damaged; every buffer on the heap and
//                      exactly as large as promised, so that AddressSanitizer sees the first byte beyond it; one row of each
//                      batch that is encoded must agree with the equations, and to the bit with itself alone
//   check threads      many threads on one encoder, whose results must be those of one thread

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

// An encoder with random weights of a random shape.
struct Subject {
    int32_t cell, layers;
    int64_t gates, hidden, inputs, vocabulary;
    bool bf16;
    std::vector<float> embedding;
    std::vector<std::vector<float>> arrays;
    std::vector<const float*> W, R, B;
    birnn_encoder* encoder;

    Subject(Random& random, const std::vector<std::string>& sets) {
        std::string name = sets[static_cast<size_t>(between(random, 0, static_cast<int64_t>(sets.size()) - 1))];
        const bool has_bf16 = name.find("+bf16") != std::string::npos;
        name = name.substr(0, name.find('+'));
        cell = static_cast<int32_t>(between(random, BIRNN_GRU, BIRNN_RNN_RELU));
        layers = static_cast<int32_t>(between(random, 1, 3));
        gates = birnn_gates(cell);
        hidden = between(random, 1, 40);
        inputs = between(random, 1, 20);
        vocabulary = between(random, 0, 3) ? between(random, 1, 30) : 0;
        const bool bias = between(random, 0, 1);
        for (int32_t layer = 0; layer < layers; layer++) {
            for (int64_t size :
                 {2 * gates * hidden * (layer ? 2 * hidden : inputs), 2 * gates * hidden * hidden, 4 * gates * hidden}) {
                arrays.push_back(floats(random, size));
            }
        }
        for (size_t array = 0; array < arrays.size(); array += 3) {
            W.push_back(arrays[array].data());
            R.push_back(arrays[array + 1].data());
            B.push_back(bias ? arrays[array + 2].data() : nullptr);
        }
        embedding = floats(random, vocabulary * inputs);
        bf16 = has_bf16 && between(random, 0, 1);
        char error[256];
        encoder = birnn_create(name.c_str(), bf16, cell, layers, hidden, inputs, vocabulary, embedding.data(), W.data(), R.data(),
                               B.data(), between(random, 0, 1) << 20, error, sizeof error);
        if (!encoder) fail(std::string("an encoder was refused: ") + error);
        if (birnn_bytes(encoder) <= 0) fail("an encoder without weights");
    }

    Subject(const Subject&) = delete;
    ~Subject() { birnn_destroy(encoder); }

    // What the equations make of one sequence.
    std::vector<double> expected(reference::Sequence states, int32_t pooling) const {
        for (int32_t layer = 0; layer < layers; layer++) {
            const size_t at = static_cast<size_t>(layer);
            const int64_t read = layer ? 2 * hidden : inputs;
            auto direction = [&](int64_t number) {
                return reference::Direction{cell,
                                            gates,
                                            hidden,
                                            read,
                                            W[at] + number * gates * hidden * read,
                                            R[at] + number * gates * hidden * hidden,
                                            B[at] ? B[at] + number * 2 * gates * hidden : nullptr};
            };
            states = reference::layer(direction(0), direction(1), states);
        }
        return reference::pooled(states, pooling);
    }
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

// Whether the batch was encoded.
bool run(const Subject& subject, const Batch& batch, int64_t tokens, int32_t pooling, int32_t threads, std::vector<float>& out) {
    char error[256] = "";
    const bool done =
        birnn_run(subject.encoder, batch.ids.empty() ? nullptr : batch.ids.data(),
                  batch.features.empty() ? nullptr : batch.features.data(), tokens, batch.offsets.data(), batch.rows(), pooling,
                  threads, out.data(), static_cast<int64_t>(out.size()), error, sizeof error);
    if (!done && !*error) fail("a refusal without a reason");
    return done;
}

size_t room(const Subject& subject, const Batch& batch, int32_t pooling) {
    const int64_t rows = pooling == BIRNN_TOKENS ? batch.tokens() : batch.rows();
    return static_cast<size_t>(rows * subject.hidden * (pooling == BIRNN_MEAN_MAX ? 4 : 2));
}

// Damages a batch; false where nothing was to be damaged.
bool damage(Random& random, const Subject& subject, Batch& batch, int64_t& tokens, std::vector<float>& out) {
    const size_t row = static_cast<size_t>(between(random, 0, batch.rows()));
    const int64_t extremes[] = {INT64_MIN, -1, 0, 1, INT32_MAX, INT64_MAX / 8, INT64_MAX};
    const int64_t extreme = extremes[between(random, 0, 6)];
    switch (between(random, 0, 4)) {
        case 0:
            if (batch.offsets[row] == extreme) return false;
            batch.offsets[row] = extreme;
            // In the middle, an offset may move without harm.
            return row == 0 || row + 1 == batch.offsets.size() || extreme <= batch.offsets[row - 1] ||
                   extreme >= batch.offsets[row + 1];
        case 1:
            if (tokens == extreme) return false;
            tokens = extreme;
            return true;
        case 2:
            if (batch.ids.empty()) return false;
            batch.ids[static_cast<size_t>(between(random, 0, tokens - 1))] =
                static_cast<int32_t>(between(random, 0, 1) ? INT32_MIN : subject.vocabulary);
            return true;
        case 3: out.resize(out.size() - 1); return true;
        default:
            batch.ids.clear();
            batch.features.clear();
            return true;
    }
}

// Compares the encoding of a random row with the equations, and with its encoding where there is no other row.
void check_row(Random& random, const Subject& subject, const Batch& batch, int32_t pooling, const std::vector<float>& out) {
    const size_t row = static_cast<size_t>(between(random, 0, batch.rows() - 1));
    const std::vector<double> expected = subject.expected(batch.row(subject, row), pooling);
    const float* found = out.data() + (pooling == BIRNN_TOKENS ? static_cast<size_t>(batch.offsets[row] * 2 * subject.hidden)
                                                               : row * expected.size());
    const double tolerance = subject.bf16 ? 1e-2 : 2e-6;
    for (size_t j = 0; j < expected.size(); j++) {
        if (!(std::abs(found[j] - expected[j]) <= tolerance * (1 + std::abs(expected[j])))) {
            fail("an encoding holds " + std::to_string(found[j]) + " where the equations give " + std::to_string(expected[j]));
        }
    }
    const Batch single = batch.alone(subject, row);
    std::vector<float> alone(expected.size());
    if (!run(subject, single, single.tokens(), pooling, 1, alone)) fail("a good batch was refused");
    if (std::memcmp(alone.data(), found, alone.size() * sizeof(float))) fail("a row depends on its neighbors");
}

void check_cases(uint64_t seed, int64_t cases) {
    const std::vector<std::string> sets = instruction_sets();
    Random random(seed);
    int64_t encoded = 0, refused = 0;
    while (encoded + refused < cases) {
        const Subject subject(random, sets);
        for (int repeat = 0; repeat < 8; repeat++) {
            Batch batch(random, subject);
            const int32_t pooling = static_cast<int32_t>(between(random, BIRNN_FINAL, BIRNN_TOKENS));
            std::vector<float> out(room(subject, batch, pooling));
            int64_t tokens = batch.tokens();
            const bool damaged = between(random, 0, 1) && damage(random, subject, batch, tokens, out);
            const bool done = run(subject, batch, tokens, pooling, static_cast<int32_t>(between(random, 1, 2)), out);
            if (done == damaged) fail(damaged ? "a damaged batch was encoded" : "a good batch was refused");
            for (float value : out) {
                if (done && !(value > -1e6f && value < 1e6f)) fail("an encoding is not finite");
            }
            // A batch that is damaged but was encoded is one whose offsets moved without harm.
            if (done) check_row(random, subject, batch, pooling, out);
            (done ? encoded : refused)++;
        }
    }
    std::printf("seed %llu: %lld batches encoded, %lld refused\n", static_cast<unsigned long long>(seed),
                static_cast<long long>(encoded), static_cast<long long>(refused));
}

void check_threads() {
    const std::vector<std::string> sets = instruction_sets();
    for (uint64_t seed = 0; seed < 20; seed++) {
        Random random(seed);
        const Subject subject(random, sets);
        const Batch batch(random, subject);
        std::vector<float> expected(room(subject, batch, BIRNN_TOKENS));
        if (!run(subject, batch, batch.tokens(), BIRNN_TOKENS, 1, expected)) fail("a good batch was refused");
        std::vector<std::thread> threads;
        for (int number = 0; number < 4; number++) {
            threads.emplace_back([&, number] {
                for (int repeat = 0; repeat < 20; repeat++) {
                    std::vector<float> out(expected.size());
                    if (!run(subject, batch, batch.tokens(), BIRNN_TOKENS, 1 + number % 2, out)) fail("a good batch was refused");
                    if (std::memcmp(out.data(), expected.data(), out.size() * sizeof(float))) fail("threads disagree");
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
    } else if (count == 3) {
        check_cases(std::strtoull(arguments[1], nullptr, 10), std::strtoll(arguments[2], nullptr, 10));
    } else {
        fail("usage: check SEED CASES | check threads");
    }
    return 0;
}
