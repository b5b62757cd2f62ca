// The part of CUDA's driver, cuBLAS and cuRAND that candle calls, on the processor.
//
// It is as unkind as a GPU may be: work waits in its stream until somebody waits for that stream, each thread has a stream of its own by the
// name 2 (CU_STREAM_PER_THREAD), new memory holds NaN, given back memory holds NaN again, and what lies around it is looked at then.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include "kernels.h"

Dim3 threadIdx, blockIdx, blockDim, gridDim;

std::map<std::string, Kernel> &kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}
void add_all();  // made by tests/cuda/run

enum { SUCCESS = 0, INVALID_VALUE = 1, INVALID_DEVICE = 101, NOT_FOUND = 500, UNKNOWN = 999 };

namespace {

[[noreturn]] void wrong(const char *what) {
  fprintf(stderr, "driver: %s\n", what);
  abort();
}

std::recursive_mutex lock;
uint64_t launches, products, uploads, downloads;

using Work = std::function<void()>;
struct Stream {
  std::deque<Work> work;
  uint64_t done = 0, put = 0;
  bool running = false;
};
std::map<uintptr_t, Stream> streams;

uintptr_t named(void *stream) {
  return stream == (void *)2 ? (1ull << 40) + syscall(SYS_gettid) : (uintptr_t)stream;
}
void run(uintptr_t name, uint64_t to) {
  Stream &stream = streams[name];
  if (std::exchange(stream.running, true)) return;
  for (; stream.done < to && !stream.work.empty(); stream.done++) {
    Work work = std::move(stream.work.front());
    stream.work.pop_front();
    work();
  }
  stream.running = false;
}
void run_all() {
  for (auto &[name, stream] : streams) run(name, stream.put);
}
void put(void *name, Work work) {
  Stream &stream = streams[named(name)];
  stream.work.push_back(std::move(work));
  stream.put++;
  // So that memory stays bounded.
  if (stream.put - stream.done > 200000) run(named(name), stream.put);
}
void wait(void *name) { run(named(name), streams[named(name)].put); }

struct Event {
  uintptr_t stream = 0;
  uint64_t at = 0;
};

const size_t AROUND = 64;
const int NAN_BYTES = 0xFF;
std::map<void *, size_t> memory;

void *take(size_t size) {
  auto *all = (unsigned char *)malloc(size + 2 * AROUND);
  memset(all, NAN_BYTES, size + 2 * AROUND);
  memory[all + AROUND] = size;
  return all + AROUND;
}
void give(void *place) {
  auto it = memory.find(place);
  if (it == memory.end()) wrong("memory is given back that nobody took");
  auto *bytes = (unsigned char *)place;
  for (size_t i = 0; i < AROUND; i++)
    if (bytes[it->second + i] != NAN_BYTES || bytes[-1 - (long)i] != NAN_BYTES) wrong("a kernel wrote beyond its memory");
  memset(place, NAN_BYTES, it->second);
  memory.erase(it);
  free(bytes - AROUND);
}

void all_threads(const Thread &thread, Dim3 grid, Dim3 block) {
  gridDim = grid, blockDim = block;
  for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
      for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++)
        for (threadIdx.z = 0; threadIdx.z < block.z; threadIdx.z++)
          for (threadIdx.y = 0; threadIdx.y < block.y; threadIdx.y++)
            for (threadIdx.x = 0; threadIdx.x < block.x; threadIdx.x++) thread();
}

// c = alpha·a·b + beta·c, columns one after the other.
struct Product {
  bool turned_a, turned_b;
  int m, n, k, lda, ldb, ldc;
  float alpha, beta;

  void one(const float *a, const float *b, float *c) const {
    std::vector<float> column((size_t)m * k);
    for (int l = 0; l < k; l++)
      for (int i = 0; i < m; i++) column[(size_t)l * m + i] = turned_a ? a[(size_t)i * lda + l] : a[(size_t)l * lda + i];
    for (int j = 0; j < n; j++) {
      float *to = c + (size_t)j * ldc;
      for (int i = 0; i < m; i++) to[i] = beta == 0 ? 0 : beta * to[i];
      for (int l = 0; l < k; l++) {
        const float factor = alpha * (turned_b ? b[(size_t)l * ldb + j] : b[(size_t)j * ldb + l]);
        for (int i = 0; i < m; i++) to[i] += factor * column[(size_t)l * m + i];
      }
    }
  }
};

}  // namespace

#define LOCK std::lock_guard<std::recursive_mutex> guard(lock)

extern "C" {
int cuInit(unsigned) {
  LOCK;
  if (!kernels().empty()) return SUCCESS;
  add_all();
  atexit([] {
    fprintf(stderr, "driver: %lu launches, %lu products, %lu uploads, %lu downloads\n", launches, products, uploads, downloads);
  });
  return SUCCESS;
}
int cuDeviceGet(int *device, int ordinal) {
  *device = 0;
  return ordinal ? INVALID_DEVICE : SUCCESS;
}
int cuDeviceGetAttribute(int *value, int, int) {
  *value = 1;
  return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void **context, int) {
  *context = (void *)1;
  return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxGetCurrent(void **context) {
  *context = (void *)1;
  return SUCCESS;
}
int cuCtxSetCurrent(void *) { return SUCCESS; }
int cuCtxSynchronize() {
  LOCK;
  run_all();
  return SUCCESS;
}

int cuStreamCreate(void **stream, unsigned) {
  LOCK;
  static uintptr_t last = 100;
  *stream = (void *)++last;
  return SUCCESS;
}
int cuStreamDestroy_v2(void *stream) {
  LOCK;
  wait(stream);
  return SUCCESS;
}
int cuStreamSynchronize(void *stream) {
  LOCK;
  wait(stream);
  return SUCCESS;
}
int cuStreamIsCapturing(void *, int *status) {
  *status = 0;
  return SUCCESS;
}
int cuEventCreate(void **event, unsigned) {
  *event = new Event;
  return SUCCESS;
}
int cuEventDestroy_v2(void *event) {
  delete (Event *)event;
  return SUCCESS;
}
int cuEventRecord(void *event, void *stream) {
  LOCK;
  *(Event *)event = {named(stream), streams[named(stream)].put};
  return SUCCESS;
}
int cuStreamWaitEvent(void *stream, void *event, unsigned) {
  LOCK;
  const Event of = *(Event *)event;
  if (of.stream && of.stream != named(stream)) put(stream, [of] { run(of.stream, of.at); });
  return SUCCESS;
}

int cuMemAllocAsync(void **place, size_t size, void *) {
  LOCK;
  if (!size) return INVALID_VALUE;
  *place = take(size);
  return SUCCESS;
}
int cuMemAlloc_v2(void **place, size_t size) { return cuMemAllocAsync(place, size, nullptr); }
int cuMemFreeAsync(void *place, void *stream) {
  LOCK;
  put(stream, [place] { give(place); });
  return SUCCESS;
}
int cuMemFree_v2(void *place) {
  LOCK;
  run_all();
  give(place);
  return SUCCESS;
}
int cuMemsetD8Async(void *place, unsigned char value, size_t size, void *stream) {
  LOCK;
  put(stream, [=] { memset(place, value, size); });
  return SUCCESS;
}
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, void *stream) {
  LOCK;
  uploads++;
  std::vector<char> copied((const char *)from, (const char *)from + size);
  put(stream, [to, copied = std::move(copied)] { memcpy(to, copied.data(), copied.size()); });
  return SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t size, void *stream) {
  LOCK;
  downloads++;
  put(stream, [=] { memcpy(to, from, size); });
  wait(stream);
  return SUCCESS;
}
int cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t size, void *stream) {
  LOCK;
  put(stream, [=] { memmove(to, from, size); });
  return SUCCESS;
}

int cuModuleLoadData(void **module, const void *) {
  *module = (void *)1;
  return SUCCESS;
}
int cuModuleUnload(void *) { return SUCCESS; }
int cuModuleGetFunction(void **function, void *, const char *name) {
  LOCK;
  auto it = kernels().find(name);
  if (it == kernels().end()) {
    fprintf(stderr, "driver: there is no kernel %s\n", name);
    return NOT_FOUND;
  }
  *function = &it->second;
  return SUCCESS;
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned,
                   void *stream, void **parameters, void **) {
  LOCK;
  const uint64_t threads = (uint64_t)bx * by * bz;
  if (!gx || !gy || !gz || !threads || threads > 1024) return INVALID_VALUE;
  launches++;
  Thread thread = (*(Kernel *)function)(parameters);
  put(stream, [=] { all_threads(thread, {gx, gy, gz}, {bx, by, bz}); });
  return SUCCESS;
}
int cuGetErrorName(int, const char **text) {
  *text = "an error";
  return SUCCESS;
}
int cuGetErrorString(int, const char **text) {
  *text = "the driver that stands in for CUDA's refuses it";
  return SUCCESS;
}

int cublasCreate_v2(void **handle) {
  *handle = new void *(nullptr);
  return SUCCESS;
}
int cublasDestroy_v2(void *handle) {
  delete (void **)handle;
  return SUCCESS;
}
int cublasSetStream_v2(void *handle, void *stream) {
  *(void **)handle = stream;
  return SUCCESS;
}
int cublasGemmStridedBatchedEx(void *handle, int turned_a, int turned_b, int m, int n, int k, const void *alpha, const void *a,
                               int type_a, int lda, long long step_a, const void *b, int type_b, int ldb, long long step_b,
                               const void *beta, void *c, int type_c, int ldc, long long step_c, int batch, int, int) {
  LOCK;
  if (type_a || type_b || type_c) return UNKNOWN;  // other than FP32
  if (lda < (turned_a ? k : m) || ldb < (turned_b ? n : k) || ldc < m) return INVALID_VALUE;
  products++;
  const Product product{turned_a != 0, turned_b != 0, m, n, k, lda, ldb, ldc, *(const float *)alpha, *(const float *)beta};
  put(*(void **)handle, [=] {
    for (int i = 0; i < batch; i++) product.one((const float *)a + i * step_a, (const float *)b + i * step_b, (float *)c + i * step_c);
  });
  return SUCCESS;
}
int curandCreateGenerator(void **generator, int) {
  *generator = (void *)1;
  return SUCCESS;
}
int curandDestroyGenerator(void *) { return SUCCESS; }
int curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return SUCCESS; }
int curandSetStream(void *, void *) { return SUCCESS; }
}

// Linked by candle, and not called by what learns.
#define NOT_HERE(name) \
  extern "C" int name(...) { return UNKNOWN; }
NOT_HERE(cuCtxDestroy_v2)
NOT_HERE(cuMemcpyPeerAsync)
NOT_HERE(cuModuleLoad)
NOT_HERE(cublasDgemmStridedBatched)
NOT_HERE(cudaFuncSetAttribute)
NOT_HERE(cudaGetDevice)
NOT_HERE(__cudaGetKernel)
NOT_HERE(__cudaLaunchKernel_ptsz)
NOT_HERE(__cudaPopCallConfiguration)
NOT_HERE(__cudaPushCallConfiguration)
NOT_HERE(__cudaRegisterFatBinary)
NOT_HERE(__cudaRegisterFatBinaryEnd)
NOT_HERE(__cudaRegisterFunction)
NOT_HERE(__cudaRegisterVar)
NOT_HERE(__cudaUnregisterFatBinary)
