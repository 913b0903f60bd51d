/* Depthwise convolution of images in bfloat16, channel by channel, with zero padding that keeps the size.
 *
 * An image is copied, with its padding, into a buffer of floats that the fastest cache holds. There, blocks of ROWS
 * rows and one vector of columns are computed at a time, so that a value that is loaded serves all rows that it is a
 * neighbour of. Channels are dealt out to the threads one by one, as cores are not equally quick or free.
 * See depthwise.py, which calls this file.
 */
#include "bfloat16.h"

#include <stdlib.h>

#define LANES 8  /* wider vectors would straddle the lines of the cache at almost each load */
#define ROWS 4
#define K_MAX 16 /* LARGEST_KERNEL in depthwise.py */
typedef float vector __attribute__((vector_size(4 * LANES)));

static inline vector load(const float *from)
{
    vector found;
    memcpy(&found, from, sizeof found);
    return found;
}

static inline float total(vector of)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += of[i];
    return sum;
}

/* How an image of h rows of w lies in a buffer: with k - 1 rows and columns of padding, and rounded up to whole blocks
 * of ROWS rows and vectors of columns. Rows are `stride` floats apart. */
typedef struct {
    long h, w, blocked_h, blocked_w, stride, size;
} shape;

static inline shape shape_of(long h, long w, long k)
{
    long blocked_h = (h + ROWS - 1) / ROWS * ROWS, blocked_w = (w + LANES - 1) / LANES * LANES;
    long stride = blocked_w + k - 1;
    shape found = {h, w, blocked_h, blocked_w, stride, (blocked_h + k - 1) * stride};
    return found;
}

/* The usual sizes are given to the functions below as constants, for the compiler to unroll their loops. */
#define INLINE static inline __attribute__((always_inline))
#define WITH_CONSTANT(name, value, a, b, c, call) \
    switch (value) {                              \
    case a: { enum { name = a }; call; break; }   \
    case b: { enum { name = b }; call; break; }   \
    case c: { enum { name = c }; call; break; }   \
    default: { const long name = value; call; }   \
    }

INLINE void widen_rows(float *buffer, const uint16_t *image, shape s, const long w)
{
    for (long y = 0; y < s.h; y++)
#pragma omp simd
        for (long x = 0; x < w; x++)
            buffer[y * s.stride + x] = widen(image[y * w + x]);
}

INLINE void narrow_rows(uint16_t *image, const float *buffer, shape s, const long w)
{
    for (long y = 0; y < s.h; y++)
#pragma omp simd
        for (long x = 0; x < w; x++)
            image[y * w + x] = narrow(buffer[y * s.stride + x]);
}

static void fill(float *buffer, const uint16_t *image, shape s, long before)
{
    buffer += before * (s.stride + 1);
    WITH_CONSTANT(W, s.w, 8, 16, 32, widen_rows(buffer, image, s, W))
}

static void take(uint16_t *image, const float *buffer, shape s)
{
    WITH_CONSTANT(W, s.w, 8, 16, 32, narrow_rows(image, buffer, s, W))
}

/* out[y, x] = sum over taps of taps[v, u] * in[y + v, x + u] */
INLINE void convolve(const float *restrict in, const float *restrict taps, float *restrict out, shape s, const long k)
{
    for (long y = 0; y < s.blocked_h; y += ROWS)
        for (long x = 0; x < s.blocked_w; x += LANES) {
            vector sums[ROWS] = {{0}};
#pragma GCC unroll 12
            for (long v = 0; v < k + ROWS - 1; v++)
#pragma GCC unroll 7
                for (long u = 0; u < k; u++) {
                    vector value = load(in + (y + v) * s.stride + x + u); /* serves each row that it is a neighbour of */
#pragma GCC unroll 4
                    for (long row = 0; row < ROWS; row++)
                        if (row <= v && v - row < k)
                            sums[row] += taps[(v - row) * k + u] * value;
                }
            for (long row = 0; row < ROWS; row++)
                memcpy(out + (y + row) * s.stride + x, &sums[row], sizeof(vector));
        }
}

/* taps[v, u] += sum over y and x of grad[y, x] * in[y + v, x + u] */
INLINE void correlate(const float *restrict in, const float *restrict grad, double *restrict taps, shape s,
                      const long k)
{
    for (long u = 0; u < k; u++) {
        vector sums[K_MAX] = {{0}};
        for (long y = 0; y < s.blocked_h; y += ROWS)
            for (long x = 0; x < s.blocked_w; x += LANES) {
                vector slopes[ROWS];
                for (long row = 0; row < ROWS; row++)
                    slopes[row] = load(grad + (y + row) * s.stride + x);
#pragma GCC unroll 12
                for (long v = 0; v < k + ROWS - 1; v++) {
                    vector value = load(in + (y + v) * s.stride + x + u);
#pragma GCC unroll 4
                    for (long row = 0; row < ROWS; row++)
                        if (row <= v && v - row < k)
                            sums[v - row] += slopes[row] * value;
                }
            }
        for (long v = 0; v < k; v++)
            taps[v * k + u] += total(sums[v]);
    }
}

/* out = in convolved with taps (channels, k, k). in, out: (channels, n, h, w). Returns 1 where memory is short. */
int depthwise(const uint16_t *in, const float *taps, uint16_t *out, long channels, long n, long h, long w, long k)
{
    shape s = shape_of(h, w, k);
    int failed = 0;
#pragma omp parallel
    {
        float *padded = calloc(2 * s.size, sizeof(float)), *result = padded + s.size;
        if (!padded)
            failed = 1;
#pragma omp for schedule(dynamic)
        for (long c = 0; c < channels; c++)
            for (long image = c * n; padded && image < (c + 1) * n; image++) {
                fill(padded, in + image * h * w, s, (k - 1) / 2);
                WITH_CONSTANT(K, k, 3, 5, 7, convolve(padded, taps + c * k * k, result, s, K))
                take(out + image * h * w, result, s);
            }
        free(padded);
    }
    return failed;
}

/* The gradients of `in` and of the taps. Returns 1 where memory is short. */
int depthwise_backward(const uint16_t *grad, const uint16_t *in, const float *taps, uint16_t *grad_in,
                       float *grad_taps, long channels, long n, long h, long w, long k)
{
    shape s = shape_of(h, w, k);
    long before = (k - 1) / 2, after = k - 1 - before, area = k * k;
    int failed = 0;
#pragma omp parallel
    {
        float *padded = calloc(3 * s.size + area, sizeof(float)), *slope = padded + s.size;
        float *result = slope + s.size, *flipped = result + s.size;
        double *sums = malloc(area * sizeof(double));
        if (!padded || !sums)
            failed = 1;
#pragma omp for schedule(dynamic)
        for (long c = 0; c < channels; c++) {
            if (!padded || !sums)
                continue;
            for (long tap = 0; tap < area; tap++) {
                flipped[tap] = taps[(c + 1) * area - 1 - tap];
                sums[tap] = 0;
            }
            for (long image = c * n; image < (c + 1) * n; image++) {
                fill(padded, in + image * h * w, s, before);
                fill(slope, grad + image * h * w, s, after);
                WITH_CONSTANT(K, k, 3, 5, 7, convolve(slope, flipped, result, s, K))
                take(grad_in + image * h * w, result, s);
                WITH_CONSTANT(K, k, 3, 5, 7, correlate(padded, slope + after * (s.stride + 1), sums, s, K))
            }
            for (long tap = 0; tap < area; tap++)
                grad_taps[c * area + tap] = (float)sums[tap];
        }
        free(padded);
        free(sums);
    }
    return failed;
}
