/* A convolution's bias, GELU and batch normalisation, for activations (channels, positions) in bfloat16, each channel
 * in one go.
 *
 * Done one after the other, bias, GELU, statistics, normalisation and residual sum pass over memory five times, and
 * their gradients again; here a channel stays in the processor's cache. See fused.py, which calls this file.
 */
#include "bfloat16.h"

#include <math.h>
#include <stdlib.h>

#define CHUNK 1024 /* summed in float, the chunks' sums in double */
#define EDGE 4.5f  /* beyond it the normal distribution is 0 or 1 to five digits */

/* GELU(x) = x P(x) has the derivative P(x) + x p(x), with the normal distribution P and its density p. Both are
 * polynomials here, fitted on Chebyshev points to P(x) = 1/2 + x A(t) and p(x) = B(t), t = 2 x^2 / EDGE^2 - 1: GELU is
 * good to 1e-4 (for |x| < 12) and its derivative to 2e-4, below the rounding of bfloat16. */
static const float A[] = {-0.00185004f, 0.00492318f, -0.00623163f, 0.00972246f, -0.01837767f,
                          0.02882051f,  -0.04026239f, 0.05464369f, -0.07718428f, 0.15690589f};
static const float B[] = {-0.02834687f, 0.05379302f, -0.02831195f, 0.03319981f, -0.07655393f,
                          0.07879505f,  -0.05339915f, 0.0311129f,  -0.01284519f, 0.0025506f};

static inline float clamped(float x)
{
    x = x > EDGE ? EDGE : x;
    return x < -EDGE ? -EDGE : x;
}

static inline float polynomial(const float *coefficients, float x)
{
    float t = x * x * (2 / (EDGE * EDGE)) - 1, sum = coefficients[0];
#pragma GCC unroll 9
    for (int k = 1; k < 10; k++)
        sum = sum * t + coefficients[k];
    return sum;
}

static inline float distribution(float x)
{
    float c = clamped(x);
    return 0.5f + c * polynomial(A, c);
}

static inline float density(float x) { return polynomial(B, clamped(x)); }

static inline long least(long a, long b) { return a < b ? a : b; }

/* out = residual + normalised(GELU(z + shift)); mean and variance are computed and stored, or, where given, used. */
void gelu_norm(const uint16_t *z, const float *shift, const uint16_t *residual, uint16_t *out, const float *weight,
               const float *bias, float *mean, float *variance, int given, float eps, long channels, long n)
{
#pragma omp parallel for schedule(dynamic)
    for (long c = 0; c < channels; c++) {
        const uint16_t *in = z + c * n, *add = residual ? residual + c * n : NULL;
        uint16_t *to = out + c * n;
        double sum = 0, squares = 0;
        for (long start = 0; start < n && !given; start += CHUNK) {
            float s = 0, s2 = 0;
#pragma omp simd reduction(+ : s, s2)
            for (long i = start; i < least(start + CHUNK, n); i++) {
                float x = widen(in[i]) + shift[c], g = x * distribution(x);
                s += g;
                s2 += g * g;
                to[i] = narrow(g);
            }
            sum += s;
            squares += s2;
        }
        if (!given) {
            mean[c] = (float)(sum / n);
            variance[c] = (float)fmax(squares / n - sum / n * (sum / n), 0);
        }
        float a = weight[c] / sqrtf(variance[c] + eps), b = bias[c] - mean[c] * a;
        if (given && add) {
#pragma omp simd
            for (long i = 0; i < n; i++) {
                float x = widen(in[i]) + shift[c];
                to[i] = narrow(a * (x * distribution(x)) + b + widen(add[i]));
            }
        } else if (given) {
#pragma omp simd
            for (long i = 0; i < n; i++) {
                float x = widen(in[i]) + shift[c];
                to[i] = narrow(a * (x * distribution(x)) + b);
            }
        } else if (add) {
#pragma omp simd
            for (long i = 0; i < n; i++)
                to[i] = narrow(a * widen(to[i]) + b + widen(add[i]));
        } else {
#pragma omp simd
            for (long i = 0; i < n; i++)
                to[i] = narrow(a * widen(to[i]) + b);
        }
    }
}

/* The gradients of z, shift, weight and bias; that of the residual is grad itself. Returns 1 where memory is short. */
int gelu_norm_backward(const uint16_t *grad, const uint16_t *z, const float *shift, uint16_t *grad_z,
                       const float *weight, const float *mean, const float *variance, float *grad_shift,
                       float *grad_weight, float *grad_bias, float eps, long channels, long n)
{
    int failed = 0;
#pragma omp parallel
    {
        float *centred = malloc(n * sizeof(float)), *slope = malloc(n * sizeof(float));
        if (!centred || !slope)
            failed = 1;
#pragma omp for schedule(dynamic)
        for (long c = 0; c < channels; c++) {
            if (!centred || !slope)
                continue;
            const uint16_t *in = z + c * n, *from = grad + c * n;
            uint16_t *to = grad_z + c * n;
            double sum = 0, dot = 0, shifted = 0;
            for (long start = 0; start < n; start += CHUNK) {
                float s = 0, d = 0;
#pragma omp simd reduction(+ : s, d)
                for (long i = start; i < least(start + CHUNK, n); i++) {
                    float x = widen(in[i]) + shift[c], p = distribution(x), g = widen(from[i]);
                    centred[i] = x * p - mean[c];
                    slope[i] = p + clamped(x) * density(x); /* beyond EDGE the last term is 0 to four digits */
                    s += g;
                    d += g * centred[i];
                }
                sum += s;
                dot += d;
            }
            float scale = 1 / sqrtf(variance[c] + eps), a = weight[c] * scale;
            float along = (float)(dot / n) * scale * scale, level = (float)(sum / n);
            grad_weight[c] = (float)dot * scale;
            grad_bias[c] = (float)sum;
            for (long start = 0; start < n; start += CHUNK) {
                float s = 0;
#pragma omp simd reduction(+ : s)
                for (long i = start; i < least(start + CHUNK, n); i++) {
                    float g = a * (widen(from[i]) - level - centred[i] * along) * slope[i];
                    s += g;
                    to[i] = narrow(g);
                }
                shifted += s;
            }
            grad_shift[c] = (float)shifted;
        }
        free(centred);
        free(slope);
    }
    return failed;
}
