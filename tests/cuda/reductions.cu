// candle's reductions and casts, by the names and parameters of its own: there threads of a block add up together, here the first does it all.
#include "cuda_utils.cuh"

template <class T, class U, class F>
void reduced(size_t count, size_t each, size_t rank, const size_t *info, const T *from, U *to, F fold) {
  if (threadIdx.x > 0) return;
  const size_t begin = blockIdx.x * each, end = std::min(begin + each, count);
  for (size_t i = begin; i < end; i++)
    fold(to[blockIdx.x], from[get_strided_index(i, rank, info, info + rank)], i == begin, i % info[rank - 1]);
}


#define PARAMETERS(T, U) const size_t count, const size_t each, const size_t rank, const size_t *info, const T *from, U *to
#define REDUCTIONS(T, NAME)                                                                                            \
  extern "C" void fast_sum_##NAME(PARAMETERS(T, T)) {                                                                  \
    reduced(count, each, rank, info, from, to, [](T &sum, T x, bool first, size_t) { sum = first ? x : sum + x; });    \
  }                                                                                                                    \
  extern "C" void fast_max_##NAME(PARAMETERS(T, T)) {                                                                  \
    reduced(count, each, rank, info, from, to, [](T &most, T x, bool first, size_t) { most = first || x > most ? x : most; }); \
  }                                                                                                                    \
  extern "C" void fast_min_##NAME(PARAMETERS(T, T)) {                                                                  \
    reduced(count, each, rank, info, from, to, [](T &least, T x, bool first, size_t) { least = first || x < least ? x : least; }); \
  }                                                                                                                    \
  extern "C" void fast_argmax_##NAME(PARAMETERS(T, uint32_t)) {                                                        \
    T most{};                                                                                                          \
    reduced(count, each, rank, info, from, to, [&](uint32_t &at, T x, bool first, size_t i) {                          \
      if (first || x > most) most = x, at = i;                                                                         \
    });                                                                                                                \
  }                                                                                                                    \
  extern "C" void fast_argmin_##NAME(PARAMETERS(T, uint32_t)) {                                                        \
    T least{};                                                                                                         \
    reduced(count, each, rank, info, from, to, [&](uint32_t &at, T x, bool first, size_t i) {                          \
      if (first || x < least) least = x, at = i;                                                                       \
    });                                                                                                                \
  }                                                                                                                    \
  extern "C" void fast_sum_small_##NAME(PARAMETERS(T, T)) {                                                            \
    const size_t row = blockIdx.x * blockDim.x + threadIdx.x;                                                          \
    if (row >= count) return;                                                                                          \
    T sum = 0;                                                                                                         \
    for (size_t i = row * each; i < (row + 1) * each; i++) sum += from[get_strided_index(i, rank, info, info + rank)]; \
    to[row] = sum;                                                                                                     \
  }
REDUCTIONS(float, f32)
REDUCTIONS(double, f64)
REDUCTIONS(uint32_t, u32)
REDUCTIONS(int64_t, i64)
REDUCTIONS(uint8_t, u8)

template <class A, class B> void cast(size_t count, size_t rank, const size_t *info, const A *from, B *to) {
  const bool plain = !info || is_contiguous(rank, info, info + rank);
  for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += blockDim.x * gridDim.x)
    to[i] = (B)from[plain ? i : get_strided_index(i, rank, info, info + rank)];
}
#define CAST(A, A_NAME, B, B_NAME)                                                                                     \
  extern "C" void cast_##A_NAME##_##B_NAME(const size_t count, const size_t rank, const size_t *info, const A *from, B *to) { \
    cast(count, rank, info, from, to);                                                                                 \
  }
#define CASTS(A, A_NAME)                                                                                               \
  CAST(A, A_NAME, uint8_t, u8)                                                                                         \
  CAST(A, A_NAME, uint32_t, u32)                                                                                       \
  CAST(A, A_NAME, int64_t, i64)                                                                                        \
  CAST(A, A_NAME, float, f32)                                                                                          \
  CAST(A, A_NAME, double, f64)
CASTS(uint8_t, u8)
CASTS(uint32_t, u32)
CASTS(int64_t, i64)
CASTS(float, f32)
CASTS(double, f64)
