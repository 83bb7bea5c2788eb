// The most multiply-adds that one core does by precision, in billions of operations a second, a multiply-add being 2:
// independent chains in registers, no memory. What the compiler may not use has no line.
// Usage: peak SECONDS. Prints a line a precision: its name, the fastest of many runs of a millisecond each, and lanes.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__AVX512F__)
#define BYTES 64
#define REGISTER "v"
#elif defined(__AVX__)
#define BYTES 32
#define REGISTER "x"
#elif defined(__x86_64__)
#define BYTES 16
#define REGISTER "x"
#else
#define BYTES 16
#define REGISTER "w"
#endif
#define LANES (BYTES / 4)
// Latency of an instruction times how many start at once is at most 10 on today's processors. Variables, since compilers
// leave arrays in memory.
#define CHAINS 12
#define EACH(DO) DO(a) DO(b) DO(c) DO(d) DO(e) DO(f) DO(g) DO(h) DO(i) DO(j) DO(k) DO(l)
#define STEPS 50000

typedef float vector __attribute__((vector_size(BYTES)));

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

// A function that runs STEP on 12 chains for some seconds, and prints. Values stay normal: 1 is a fixed point of x / 2 +
// 1 / 2, and the products of bf16 and int8 that are added are 0. The sum is used, so that nothing is left out.
#define MEASURE(NAME, STEP, OPERATIONS)                                                                        \
    static void NAME(double seconds) {                                                                         \
        double end = now() + seconds, best = 0, sum = 0;                                                       \
        vector factor = {0}, a = {0};                                                                          \
        factor += 0.5f;                                                                                        \
        vector term = factor, zero = a, b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a; \
        (void)term, (void)zero;                                                                                \
        while (now() < end) {                                                                                  \
            double start = now();                                                                              \
            for (int step = 0; step < STEPS; step++) {                                                         \
                EACH(STEP)                                                                                     \
            }                                                                                                  \
            double rate = 2.0 * (OPERATIONS) * LANES * CHAINS * STEPS / (now() - start) / 1e9;                 \
            if (rate > best) best = rate;                                                                      \
            EACH(ADD)                                                                                          \
        }                                                                                                      \
        printf("%s %.2f %d\n", #NAME, best, sum >= 0 ? LANES : 0);                                             \
    }
#define ADD(x) sum += x[0];
// The empty assembly keeps the loop as it is written, and the chain in a register.
#define FLOAT32(x)             \
    x = x * factor + term;     \
    __asm__ volatile("" : "+" REGISTER(x));
MEASURE(float32, FLOAT32, 1)

#if defined(__AVX512BF16__)
#define BF16(x) __asm__ volatile("vdpbf16ps %1, %2, %0" : "+v"(x) : "v"(factor), "v"(zero));
MEASURE(bf16, BF16, 2)
#endif

#if defined(__AVX512VNNI__)
#define INT8(x) __asm__ volatile("vpdpbusd %1, %2, %0" : "+v"(x) : "v"(factor), "v"(zero));
#elif defined(__AVXVNNI__)
#define INT8(x) __asm__ volatile("%{vex%} vpdpbusd %1, %2, %0" : "+x"(x) : "x"(factor), "x"(zero));
#endif
#if defined(INT8)
MEASURE(int8, INT8, 4)
#endif

int main(int count, char **arguments) {
    double seconds = count > 1 ? atof(arguments[1]) : 1.0;
    float32(seconds);
#if defined(__AVX512BF16__)
    bf16(seconds);
#endif
#if defined(INT8)
    int8(seconds);
#endif
    return 0;
}
