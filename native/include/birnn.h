/* The native kernels' interface, in plain C. No exception leaves it.
 *
 * Sizes, offsets, ids and whether pointers are null are checked before anything is done with them; the caller answers for
 * what pointers point to. Where a call can fail, the reason is written to `error`, which has room for `error_size` characters.
 */
#ifndef BIRNN_H
#define BIRNN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define BIRNN_PUBLIC __attribute__((visibility("default")))
#else
#define BIRNN_PUBLIC
#endif

/* The recurrences; bundle/birnn_bundle/cells.py has their equations. */
enum birnn_cell {
    BIRNN_GRU = 0,
    BIRNN_GRU_RESET_FIRST = 1, /* ONNX's linear_before_reset = 0 */
    BIRNN_LSTM = 2,
    BIRNN_RNN_TANH = 3,
    BIRNN_RNN_RELU = 4
};

/* What becomes of the states of a sequence; both directions side by side. */
enum birnn_pooling {
    BIRNN_FINAL = 0,
    BIRNN_MEAN = 1,
    BIRNN_MAX = 2,
    BIRNN_MEAN_MAX = 3,
    BIRNN_TOKENS = 4 /* every state */
};

/* How products are computed; states, gates and pooling are float32 in any case. */
enum birnn_precision {
    BIRNN_FP32 = 0,
    BIRNN_BF16 = 1, /* products of bf16, added in float32 */
    BIRNN_INT8 = 2  /* products of 8-bit integers, added exactly; the first layer's input products in float32. The
                     * same bits on every instruction set. Not with relu, whose states have no bound. */
};

typedef struct birnn_encoder birnn_encoder;

/* Instruction sets that were built and run on this processor, the best first, separated by commas. Each computes in float32;
 * "+bf16" and "+int8" follow its name where it has these, too. */
BIRNN_PUBLIC void birnn_instruction_sets(char* names, size_t size);

/* Gates of a cell; 0 where there is no such cell. */
BIRNN_PUBLIC int32_t birnn_gates(int32_t cell);

/* An encoder, or null and the reason in `error`. It copies the weights, which are those of ONNX's operators, all float32,
 * with G gates in their order (GRU z,r,h; LSTM i,o,f,c).
 *
 *   instruction_set  one of birnn_instruction_sets
 *   precision        one of birnn_precision
 *   cell             one of birnn_cell
 *   layers           1 to 64
 *   hidden           H of each layer, 1 to 65,536
 *   input_size       E: of the embedding, or features, 1 to 65,536
 *   vocabulary       V, up to 2^24; 0 where inputs are features
 *   embedding        [V, E]; null where inputs are features
 *   W, R, B          by layer: [2, G H, E or 2 H of the layer below], [2, G H, H] and [2, 2 G H]; each of B may be null
 *   most_table_bytes memory that the first layer's products of all ids may take, at least 0 */
BIRNN_PUBLIC birnn_encoder* birnn_create(const char* instruction_set, int32_t precision, int32_t cell, int32_t layers,
                                         const int64_t* hidden, int64_t input_size, int64_t vocabulary, const float* embedding,
                                         const float* const* W, const float* const* R, const float* const* B,
                                         int64_t most_table_bytes, char* error, size_t error_size);

/* Null is no encoder, and nothing to destroy. */
BIRNN_PUBLIC void birnn_destroy(birnn_encoder* encoder);

/* Bytes of packed weights and tables; 0 of null. */
BIRNN_PUBLIC int64_t birnn_bytes(const birnn_encoder* encoder);

/* Encodes a batch; 1, or 0 and the reason in `error`, and then `out` is undefined. Several threads may call it at once.
 *
 *   ids, features    [tokens] or [tokens, E], sequences back to back; the other one is null
 *   offsets          [rows + 1]: where each sequence begins, and last where the final one ends;
 *                    at most 2^36 tokens
 *   pooling          one of birnn_pooling
 *   threads          1, or 2 to walk both directions at the same time
 *   out              [rows, 2 H] with H of the last layer, of BIRNN_MEAN_MAX [rows, 4 H], of BIRNN_TOKENS
 *                    [tokens, 2 H]; `out_size` floats */
BIRNN_PUBLIC int32_t birnn_run(birnn_encoder* encoder, const int32_t* ids, const float* features, int64_t tokens,
                               const int64_t* offsets, int64_t rows, int32_t pooling, int32_t threads, float* out,
                               int64_t out_size, char* error, size_t error_size);

#ifdef __cplusplus
}
#endif

#endif
