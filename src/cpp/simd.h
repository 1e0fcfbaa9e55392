// Vectors of the widest kind that this translation unit may use, and the functions that cells need.
//
// Everything below lives in a namespace named after the instruction set (TT_ISA), inside an
// unnamed one: this header is compiled once per instruction set, and the linker must never take
// one build's template for another's.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#define TT_BYTES 64
#define TT_REGISTERS 32
#elif defined(__AVX2__)
#define TT_BYTES 32
#define TT_REGISTERS 16
#elif defined(__ARM_NEON)
#define TT_BYTES 16
#define TT_REGISTERS 32
#else
#define TT_BYTES 16
#define TT_REGISTERS 16
#endif

#define TT_INLINE inline __attribute__((always_inline))
#define TT_UNROLL _Pragma("GCC unroll 32")

namespace TT_ISA {
namespace {

typedef int64_t idx;

struct bf16 {
  uint16_t bits;
};

template <class T>
struct Simd;

template <>
struct Simd<float> {
  typedef float V __attribute__((vector_size(TT_BYTES)));
  typedef float U __attribute__((vector_size(TT_BYTES), aligned(4), may_alias));
  typedef int32_t I __attribute__((vector_size(TT_BYTES)));
};

template <>
struct Simd<double> {
  typedef double V __attribute__((vector_size(TT_BYTES)));
  typedef double U __attribute__((vector_size(TT_BYTES), aligned(8), may_alias));
  typedef int64_t I __attribute__((vector_size(TT_BYTES)));
};

template <class T>
using Vec = typename Simd<T>::V;

template <class T>
constexpr int lanes = TT_BYTES / int(sizeof(T));

template <class T>
TT_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Simd<T>::U*>(p);
}

template <class T>
TT_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename Simd<T>::U*>(p) = v;
}

// The first n lanes; the others are zero (load) or left alone in memory (store).
template <class T>
TT_INLINE Vec<T> load(const T* p, idx n) {
  if (n >= lanes<T>) return load(p);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return (Vec<T>)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
  }
#endif
  Vec<T> v = {};
  for (idx i = 0; i < n; i++) v[i] = p[i];
  return v;
}

template <class T>
TT_INLINE void store(T* p, Vec<T> v, idx n) {
  if (n >= lanes<T>) return store(p, v);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
  }
#endif
  for (idx i = 0; i < n; i++) p[i] = v[i];
}

// Weights, kept as they are or as bfloat16: the upper half of a float.
template <class T>
TT_INLINE Vec<T> weights(const T* p) {
  return load(p);
}

template <class T>
TT_INLINE Vec<T> weights(const bf16* p) {
  static_assert(sizeof(T) == 4, "bfloat16 weights go with float32 arithmetic");
  typedef uint16_t H __attribute__((vector_size(TT_BYTES / 2)));
  typedef uint32_t W __attribute__((vector_size(TT_BYTES)));
  H half;
  memcpy(&half, p, sizeof half);
  W wide = __builtin_convertvector(half, W) << 16;
  return (Vec<T>)wide;
}

TT_INLINE void keep(float* p, float value) { *p = value; }
TT_INLINE void keep(double* p, double value) { *p = value; }
TT_INLINE void keep(bf16* p, float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) {
    p->bits = uint16_t((bits >> 16) | 0x40);  // NaN stays NaN
    return;
  }
  p->bits = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);  // to nearest, ties to even
}

// exp(x) - 1 as scale * m + (scale - 1), from 2^k and a polynomial on [-ln2/2, ln2/2] whose
// coefficients are a minimax fit (relative error of m below 2^-25).
struct Power {
  Simd<float>::V scale, minus_one;
};

TT_INLINE Power power(Simd<float>::V x) {
  typedef Simd<float>::V V;
  typedef Simd<float>::I I;
  const float magic = 12582912.0f;  // adding it rounds to an integer, kept in the low bits
  V z = x * 1.44269504088896341f + magic;
  V k = z - magic;
  V r = x - k * 0.693359375f;
  r = r + k * 2.12194440e-4f;
  V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  V m = p * (r * r) + r;
  I bits = ((I)z - 0x4B400000 + 127) << 23;
  return {(V)bits, m};
}

TT_INLINE Simd<float>::V sigmoid(Simd<float>::V x) {
  typedef Simd<float>::V V;
  const V low = V{} - 87.0f, high = V{} + 89.0f;
  V t = -x;
  t = t < low ? low : t;    // NaN passes both comparisons
  t = t > high ? high : t;  // 2^128 is infinite, so sigmoid(-89) is 0
  Power e = power(t);
  return 1.0f / (1.0f + e.scale * (1.0f + e.minus_one));  // never infinity minus infinity
}

TT_INLINE Simd<float>::V tanh(Simd<float>::V x) {
  typedef Simd<float>::V V;
  typedef Simd<float>::I I;
  I sign = (I)x & INT32_MIN;
  V t = (V)((I)x ^ sign);
  const V high = V{} + 10.0f;
  t = t > high ? high : t;
  Power e = power(t + t);
  V m = e.scale * e.minus_one + (e.scale - 1.0f);
  return (V)((I)(m / (m + 2.0f)) | sign);
}

// Double precision is for proofs, not for speed: the C library's functions, lane by lane.
TT_INLINE Simd<double>::V sigmoid(Simd<double>::V x) {
  for (int i = 0; i < lanes<double>; i++) x[i] = 1.0 / (1.0 + std::exp(-x[i]));
  return x;
}

TT_INLINE Simd<double>::V tanh(Simd<double>::V x) {
  for (int i = 0; i < lanes<double>; i++) x[i] = std::tanh(x[i]);
  return x;
}

template <class V>
TT_INLINE V relu(V x) {
  V zero = {};
  return x < zero ? zero : x;  // NaN stays NaN, as in torch
}

}  // namespace
}  // namespace TT_ISA
