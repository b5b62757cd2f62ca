// CUDA's words for a C++ compiler: a kernel is a function that is called once a thread, one after the other.
#pragma once

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

// Old enough for sources to leave half precision out.
#define __CUDA_ARCH__ 520
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__

struct Dim3 {
  unsigned x, y, z;
};
struct float4 {
  float x, y, z, w;
};
extern Dim3 threadIdx, blockIdx, blockDim, gridDim;

using std::isnan;
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.7071067811865476); }

template <class T> T atomicAdd(T *place, T value) {
  T before = *place;
  *place += value;
  return before;
}
template <class A, class B> auto min(A a, B b) {
  using C = std::common_type_t<A, B>;
  return std::min<C>(a, b);
}
template <class A, class B> auto max(A a, B b) {
  using C = std::common_type_t<A, B>;
  return std::max<C>(a, b);
}
// Kernels whose threads wait for each other are in reductions.cu.
inline void __syncthreads() { assert(!"a kernel waits for its other threads"); }
#define __shared__ static

// What runs one thread, with the parameters of a launch.
using Thread = std::function<void()>;
using Kernel = std::function<Thread(void **)>;
std::map<std::string, Kernel> &kernels();

template <class... A, size_t... I>
Thread bound(void (*f)(A...), void **parameters, std::index_sequence<I...>) {
  std::tuple<std::decay_t<A>...> copied{*(std::decay_t<A> *)parameters[I]...};
  return [f, copied] { std::apply(f, copied); };
}
template <class... A> void add(const char *name, void (*f)(A...)) {
  kernels()[name] = [f](void **parameters) { return bound(f, parameters, std::index_sequence_for<A...>{}); };
}
