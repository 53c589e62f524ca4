// Vectors of float32 numbers, in the vector types of GCC and Clang; `_cpp.py` puts this before every other file.

#include <omp.h>
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
#include <immintrin.h>
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

// How many numbers are in a vector, and for how many rows of so many vectors the registers can hold sums at once, beside
// as many vectors of one factor and one of the other.
#if defined(CPU_CAPABILITY_AVX512)
constexpr int LANES = 16, ROWS = 8, VECTORS = 2;  // 32 registers
#elif defined(CPU_CAPABILITY_AVX2)
constexpr int LANES = 8, ROWS = 6, VECTORS = 2;  // 16 registers
#else
constexpr int LANES = 4, ROWS = 8, VECTORS = 2;  // 32 registers on Arm
#endif

using Index = std::int64_t;
typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef std::int32_t Mask __attribute__((vector_size(4 * LANES)));  // of comparisons

// The first `count` lanes, fewer than all; none where it is 0 or negative.
#if defined(CPU_CAPABILITY_AVX512)
static inline __mmask16 first(Index count) { return count > 0 ? __mmask16((1u << count) - 1) : __mmask16(0); }
#elif defined(CPU_CAPABILITY_AVX2)
static inline __m256i first(Index count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// `count` is below LANES where less than a vector is left: then only so many numbers are read or written. It may be
// negative where nothing is left.
static inline Vector load(const float* from, Index count) {
  if (count >= LANES) return *(const Vector*)from;
#if defined(CPU_CAPABILITY_AVX512)
  return (Vector)_mm512_maskz_loadu_ps(first(count), from);
#elif defined(CPU_CAPABILITY_AVX2)
  return (Vector)_mm256_maskload_ps(from, first(count));
#else
  Vector v = {};
  for (Index lane = 0; lane < count; ++lane) v[lane] = from[lane];
  return v;
#endif
}

static inline void store(float* to, Vector v, Index count) {
  if (count >= LANES) {
    *(Vector*)to = v;
    return;
  }
#if defined(CPU_CAPABILITY_AVX512)
  _mm512_mask_storeu_ps(to, first(count), (__m512)v);
#elif defined(CPU_CAPABILITY_AVX2)
  _mm256_maskstore_ps(to, first(count), (__m256)v);
#else
  for (Index lane = 0; lane < count; ++lane) to[lane] = v[lane];
#endif
}
