// The most float32 multiply-adds that one core does, as GFLOP/s: independent chains in registers, no memory.
// Usage: peak SECONDS. Prints the fastest of many runs of a few milliseconds each.
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
// Latency of an FMA times how many start at once is at most 10 on today's processors. Variables, since compilers leave
// arrays in memory.
#define CHAINS 12
#define EACH(DO) DO(a) DO(b) DO(c) DO(d) DO(e) DO(f) DO(g) DO(h) DO(i) DO(j) DO(k) DO(l)
// The empty assembly keeps the loop as it is written, and the chain in a register.
#define STEP(x) x = x * factor + term; __asm__ volatile("" : "+" REGISTER(x));
#define ADD(x) sum += x[0];
#define STEPS 200000

typedef float vector __attribute__((vector_size(BYTES)));

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

int main(int count, char **arguments) {
    double end = now() + (count > 1 ? atof(arguments[1]) : 1.0), best = 0, sum = 0;
    // Values that stay normal: a fixed point at 1.
    vector factor = {0}, a = {0};
    factor += 0.5f;
    vector term = factor, b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a;
    while (now() < end) {
        double start = now();
        for (int step = 0; step < STEPS; step++) {
            EACH(STEP)
        }
        double gflops = 2.0 * LANES * CHAINS * STEPS / (now() - start) / 1e9;
        if (gflops > best) best = gflops;
        EACH(ADD)
    }
    // The sum is used, so that nothing of it is left out.
    printf("%.2f %d\n", best, sum > 0 ? LANES : 0);
    return 0;
}
