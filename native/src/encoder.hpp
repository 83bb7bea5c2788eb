// A bidirectional recurrent encoder: layers of two directions over a ragged batch, and pooling.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "companion.hpp"
#include "weights.hpp"

namespace birnn {

// The bound of one batch.
constexpr int64_t MOST_TOKENS = int64_t{1} << 36;

// What `birnn_create` is given.
struct Model {
    birnn_cell cell;
    int32_t layers;
    const int64_t* hidden;     // H by layer
    int64_t input_size;        // E: of the embedding, or features
    int64_t vocabulary;        // V; 0 where inputs are features
    const float* embedding;    // [V, E]
    const float* const* W;     // by layer [2, G H, E or 2 H of the layer below]
    const float* const* R;     // by layer [2, G H, H]
    const float* const* B;     // by layer [2, 2 G H], or null
    int64_t most_table_bytes;  // of memory that the first layer's products of all ids may take
};

// Of one layer.
struct LayerSize {
    int64_t hidden;  // H
    int64_t padded;  // H up to whole vectors
    int panels;

    LayerSize(int64_t hidden, int lanes)
        : hidden(hidden), padded((hidden + lanes - 1) / lanes * lanes), panels(static_cast<int>(padded / lanes)) {}
};

// Sequences back to back: `offsets` [rows + 1] into `ids` [tokens] or `features` [tokens, E].
struct Batch {
    const int32_t* ids;
    const float* features;
    const int64_t* offsets;
    int64_t rows, tokens;
};

// What one run needs besides the weights; kept for the next run.
struct Workspace;

class Encoder {
   public:
    // Packs the weights for `kernels`; std::invalid_argument for sizes that cannot be, and for what cannot be multiplied in
    // that precision.
    Encoder(const Kernels& kernels, birnn_precision precision, const Model& model);
    ~Encoder();

    // Encodes a batch into `out`: [rows, width] for pooled outputs, [tokens, 2 H] for tokens. With two `threads` both
    // directions are walked at the same time. std::invalid_argument where the batch is not as it should be.
    void run(const Batch& batch, birnn_pooling pooling, int threads, float* out);

    int64_t width(birnn_pooling pooling) const { return (pooling == BIRNN_MEAN_MAX ? 4 : 2) * sizes_.back().hidden; }
    size_t bytes() const;

   private:
    struct Rows;

    // What a layer reads, in values as they are multiplied.
    int64_t inputs(int layer) const { return layer ? 2 * sizes_[static_cast<size_t>(layer) - 1].padded : inputs_; }

    template <class Operand>
    void pack_layers(const Model& model);
    template <class Operand>
    void run_rows(const Batch& batch, const Rows& rows, birnn_pooling pooling, int threads, float* out, Workspace& work);
    template <class Operand>
    void gather(const Batch& batch, const Rows& rows, Workspace& work);
    template <class Operand>
    void walk(int layer, int direction, const Rows& rows, birnn_pooling pooling, float* out, Workspace& work);
    // In int8: no input of the first layer is beyond its bound.
    void check_inputs(const float* values, int64_t count) const;
    std::unique_ptr<Workspace> borrow();
    void give_back(std::unique_ptr<Workspace> work);

    const birnn_precision precision_;
    const Arithmetic arithmetic_;
    const birnn_cell cell_;
    const int gates_;
    const int layers_;
    const int64_t inputs_, input_size_, vocabulary_;
    std::vector<LayerSize> sizes_;
    bool table_ = false;
    float largest_input_ = 0;                // in int8: with what is beyond, the first layer's products could overflow
    Buffer embedding_;                       // [V][inputs], as it is multiplied; empty where there is a table
    std::vector<DirectionWeights> weights_;  // by layer and direction

    std::mutex mutex_;  // guards the workspaces at rest
    std::vector<std::unique_ptr<Workspace>> resting_;
    std::unique_ptr<Companion> companion_;
};

}  // namespace birnn
