/* A driver for tests: the part of CUDA's public driver API that orinspect, pycuda and cuda-python use, on host memory.

   One integrated device of compute capability 8.7 whose memory is the computer's own, as on a Jetson Orin. Everything
   on a stream happens at once and in order, except during capture, when it is kept for cuGraphLaunch. It checks what a
   real driver checks (a current context, live pointers, sizes), counts calls and live objects, and fails on demand.
   It says nothing about speed and runs no kernels. Written from the public documentation; compiled by the tests. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int CUresult;
typedef int CUdevice;
typedef uintptr_t CUdeviceptr;
typedef void (*CUhostFn)(void *);
enum { OK = 0, BAD_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
       INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900 };
enum { DEVICE_MEMORY, HOST_MEMORY, STREAMS, EVENTS, GRAPHS, CONTEXTS /* last */, KINDS };
#define CONTEXT_MAGIC 0x37c7
#define DEEPEST 64
#define MOST_NAMES 256

typedef struct { int magic, references; } Context;
typedef struct Op { struct Op *next; CUhostFn function; void *data; void *to; const void *from; size_t bytes; } Op;
typedef struct { int magic; Op *first, **last; } Graph;
typedef struct { int magic; Graph *capture; } Stream;
typedef struct Block { struct Block *next; char *address; size_t bytes; int kind; } Block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t owner;
static Context primary = {CONTEXT_MAGIC, 0};
static __thread Context *stack[DEEPEST];
static __thread int depth;
static Block *blocks;
static long live[KINDS];
static long capacity = 8L << 30, used;
static struct { const char *name; long calls; } names[MOST_NAMES];
static long all_calls, fail_at;
static char fail_name[64];
static int fail_code;
static const char *failed = "";

/* ---- control, for the tests ---- */
long fake_live(int kind) { return live[kind]; }
long fake_used(void) { return used; }
long fake_all_calls(void) { return all_calls; }
void fake_set_capacity(long bytes) { capacity = bytes; }
long fake_calls(const char *name) {
  for (int i = 0; i < MOST_NAMES && names[i].name; i++) if (!strcmp(names[i].name, name)) return names[i].calls;
  return 0;
}
/* The nth call from now of `name` (of any function when it is empty) fails with `code`; n = 0 switches it off. */
void fake_fail(const char *name, long n, int code) {
  snprintf(fail_name, sizeof fail_name, "%s", name);
  fail_at = n;
  fail_code = code;
  failed = "";
}
/* The function that failed on demand; empty when none has. */
const char *fake_failed(void) { return failed; }

/* Every function of the API begins here: counts, fails on demand, checks that the process is initialised. */
static CUresult enter(const char *name, int needs_init, int needs_context) {
  CUresult result = OK;
  pthread_mutex_lock(&lock);
  all_calls++;
  int i = 0;
  while (i < MOST_NAMES - 1 && names[i].name && names[i].name != name) i++;
  names[i].name = name;
  names[i].calls++;
  if (fail_at > 0 && (!fail_name[0] || !strcmp(fail_name, name)) && --fail_at == 0) { result = fail_code; failed = name; }
  pthread_mutex_unlock(&lock);
  if (result) return result;
  if (needs_init && owner != getpid()) return NOT_INITIALIZED;
  if (needs_context && (!depth || !stack[depth - 1]->references)) return INVALID_CONTEXT;
  return OK;
}
#define ENTER(init, context) do { CUresult r_ = enter(__func__, init, context); if (r_) return r_; } while (0)

static void count(int kind, int change) {
  pthread_mutex_lock(&lock);
  live[kind] += change;
  pthread_mutex_unlock(&lock);
}

/* ---- process, device, context ---- */
CUresult cuInit(unsigned flags) { ENTER(0, 0); (void)flags; owner = getpid(); return OK; }
CUresult cuDriverGetVersion(int *version) { ENTER(0, 0); *version = 13000; return OK; }
CUresult cuGetErrorName(CUresult code, const char **text) { (void)code; *text = "CUDA_ERROR_OF_THE_FAKE_DRIVER"; return OK; }
CUresult cuGetErrorString(CUresult code, const char **text) {
  *text = code == OK ? "no error" : code == OUT_OF_MEMORY ? "out of memory" : code == NOT_INITIALIZED ? "not initialized"
        : code == INVALID_CONTEXT ? "invalid device context" : code == BAD_VALUE ? "invalid argument" : "failed";
  return OK;
}
CUresult cuDeviceGetCount(int *n) { ENTER(1, 0); *n = 1; return OK; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { ENTER(1, 0); if (ordinal) return INVALID_DEVICE; *device = 0; return OK; }
CUresult cuDeviceGetName(char *name, int size, CUdevice d) { ENTER(1, 0); (void)d; snprintf(name, size, "Fake Orin"); return OK; }
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice d) { ENTER(1, 0); (void)d; *bytes = capacity; return OK; }
CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice d) { ENTER(1, 0); (void)d; *major = 8; *minor = 7; return OK; }
CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice d) {
  ENTER(1, 0);
  (void)d;
  /* 16: multiprocessors, 18: integrated, 19: can map host memory, 41: unified addressing, 75, 76: capability */
  *value = attribute == 16 ? 8 : attribute == 75 ? 8 : attribute == 76 ? 7
         : attribute == 18 || attribute == 19 || attribute == 41;
  return OK;
}
CUresult cuDevicePrimaryCtxRetain(Context **context, CUdevice d) {
  ENTER(1, 0);
  (void)d;
  if (!primary.references++) count(CONTEXTS, 1);
  *context = &primary;
  return OK;
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice d) {
  ENTER(1, 0);
  (void)d;
  if (!primary.references) return INVALID_CONTEXT;
  if (!--primary.references) count(CONTEXTS, -1);
  return OK;
}
CUresult cuCtxPushCurrent_v2(Context *context) {
  ENTER(1, 0);
  if (!context || context->magic != CONTEXT_MAGIC || !context->references || depth == DEEPEST) return INVALID_CONTEXT;
  stack[depth++] = context;
  return OK;
}
CUresult cuCtxPopCurrent_v2(Context **context) {
  ENTER(1, 0);
  if (!depth) return INVALID_CONTEXT;
  *context = stack[--depth];
  return OK;
}
CUresult cuCtxGetCurrent(Context **context) { ENTER(1, 0); *context = depth ? stack[depth - 1] : NULL; return OK; }
CUresult cuCtxGetDevice(CUdevice *device) { ENTER(1, 1); *device = 0; return OK; }
CUresult cuCtxSynchronize(void) { ENTER(1, 1); return OK; }
int fake_depth(void) { return depth; }

/* ---- memory ---- */
static CUresult allocate(void **address, size_t bytes, int kind) {
  if (!bytes) return BAD_VALUE;
  pthread_mutex_lock(&lock);
  CUresult result = OUT_OF_MEMORY;
  Block *block = malloc(sizeof *block);
  if (used + (long)bytes <= capacity && !posix_memalign(address, 256, bytes)) {
    memset(*address, 0xA5, bytes);
    *block = (Block){blocks, *address, bytes, kind};
    blocks = block;
    used += bytes;
    live[kind]++;
    result = OK;
  } else free(block);
  pthread_mutex_unlock(&lock);
  return result;
}
static CUresult release(void *address, int kind) {
  CUresult result = BAD_VALUE;
  pthread_mutex_lock(&lock);
  for (Block **place = &blocks; *place; place = &(*place)->next) {
    Block *block = *place;
    if (block->address != address || block->kind != kind) continue;
    *place = block->next;
    used -= block->bytes;
    live[kind]--;
    free(block->address);
    free(block);
    result = OK;
    break;
  }
  pthread_mutex_unlock(&lock);
  return result;
}
/* Does [address, address + bytes) lie in one live block of memory that the device can reach? */
static int reachable(const void *address, size_t bytes) {
  int found = 0;
  pthread_mutex_lock(&lock);
  for (Block *b = blocks; b && !found; b = b->next)
    found = (const char *)address >= b->address && (const char *)address + bytes <= b->address + b->bytes;
  pthread_mutex_unlock(&lock);
  return found;
}
int fake_reachable(const void *address, size_t bytes) { return reachable(address, bytes); }
CUresult cuMemAlloc_v2(CUdeviceptr *p, size_t bytes) { ENTER(1, 1); return allocate((void **)p, bytes, DEVICE_MEMORY); }
CUresult cuMemFree_v2(CUdeviceptr p) { ENTER(1, 1); return release((void *)p, DEVICE_MEMORY); }
CUresult cuMemHostAlloc(void **p, size_t bytes, unsigned flags) { ENTER(1, 1); (void)flags; return allocate(p, bytes, HOST_MEMORY); }
CUresult cuMemFreeHost(void *p) { ENTER(1, 1); return release(p, HOST_MEMORY); }
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *p, unsigned flags) {
  ENTER(1, 1);
  (void)flags;
  if (!reachable(p, 1)) return BAD_VALUE;
  *out = (CUdeviceptr)p;
  return OK;
}
CUresult cuMemGetInfo_v2(size_t *free_, size_t *total) { ENTER(1, 1); *free_ = capacity - used; *total = capacity; return OK; }

/* Free what is left of a test that made freeing fail. */
void fake_forget(void) {
  for (Block *b = blocks, *next; b; b = next) { next = b->next; free(b->address); free(b); }
  blocks = NULL;
  used = 0;
  memset(live, 0, sizeof live - sizeof live[CONTEXTS]);
}

/* ---- streams, copies, graphs ---- */
static int is_stream(const Stream *s) { return s && s->magic == STREAMS; }
static CUresult submit(Stream *s, Op op) {
  if (!s || !s->capture) {
    if (op.function) op.function(op.data); else memmove(op.to, op.from, op.bytes);
    return OK;
  }
  Op *kept = malloc(sizeof *kept);
  *kept = op;
  kept->next = NULL;
  *s->capture->last = kept;
  s->capture->last = &kept->next;
  return OK;
}
CUresult cuStreamCreate(Stream **s, unsigned flags) {
  ENTER(1, 1);
  (void)flags;
  *s = calloc(1, sizeof **s);
  (*s)->magic = STREAMS;
  count(STREAMS, 1);
  return OK;
}
CUresult cuStreamDestroy_v2(Stream *s) {
  ENTER(1, 1);
  if (!is_stream(s)) return INVALID_HANDLE;
  s->magic = 0;
  free(s);
  count(STREAMS, -1);
  return OK;
}
CUresult cuStreamSynchronize(Stream *s) { ENTER(1, 1); if (!is_stream(s)) return INVALID_HANDLE; return s->capture ? CAPTURE_UNSUPPORTED : OK; }
CUresult cuStreamQuery(Stream *s) { ENTER(1, 1); return is_stream(s) ? OK : INVALID_HANDLE; }
CUresult cuEventCreate(int **event, unsigned flags) {
  ENTER(1, 1);
  (void)flags;
  *event = malloc(sizeof **event);
  **event = EVENTS;
  count(EVENTS, 1);
  return OK;
}
static int is_event(const int *event) { return event && *event == EVENTS; }
CUresult cuEventRecord(int *event, Stream *s) { ENTER(1, 1); return is_event(event) && is_stream(s) ? OK : INVALID_HANDLE; }
CUresult cuEventSynchronize(int *event) { ENTER(1, 1); return is_event(event) ? OK : INVALID_HANDLE; }
CUresult cuEventDestroy_v2(int *event) {
  ENTER(1, 1);
  if (!is_event(event)) return INVALID_HANDLE;
  *event = 0;
  free(event);
  count(EVENTS, -1);
  return OK;
}
static CUresult copy(void *to, const void *from, size_t bytes, Stream *s, const void *on_device) {
  if (s && !is_stream(s)) return INVALID_HANDLE;
  if (!reachable(on_device, bytes)) return BAD_VALUE;
  return submit(s, (Op){.to = to, .from = from, .bytes = bytes});
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t n, Stream *s) { ENTER(1, 1); return copy((void *)to, from, n, s, (void *)to); }
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t n, Stream *s) { ENTER(1, 1); return copy(to, (void *)from, n, s, (void *)from); }
CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t n) { ENTER(1, 1); return copy((void *)to, from, n, NULL, (void *)to); }
CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t n) { ENTER(1, 1); return copy(to, (void *)from, n, NULL, (void *)from); }
CUresult cuLaunchHostFunc(Stream *s, CUhostFn function, void *data) {
  ENTER(1, 1);
  return is_stream(s) ? submit(s, (Op){.function = function, .data = data}) : INVALID_HANDLE;
}
CUresult cuStreamBeginCapture_v2(Stream *s, int mode) {
  ENTER(1, 1);
  (void)mode;
  if (!is_stream(s)) return INVALID_HANDLE;
  if (s->capture) return CAPTURE_UNSUPPORTED;
  s->capture = calloc(1, sizeof(Graph));
  s->capture->magic = GRAPHS;
  s->capture->last = &s->capture->first;
  count(GRAPHS, 1);
  return OK;
}
static void drop(Graph *graph) {
  for (Op *op = graph->first, *next; op; op = next) { next = op->next; free(op); }
  graph->magic = 0;
  free(graph);
  count(GRAPHS, -1);
}
CUresult cuStreamEndCapture(Stream *s, Graph **graph) {
  if (is_stream(s) && s->capture && enter(__func__, 1, 1)) {
    /* A capture that fails to end is gone all the same. */
    drop(s->capture);
    s->capture = NULL;
    return fail_code;
  }
  if (!is_stream(s) || !s->capture) return INVALID_HANDLE;
  *graph = s->capture;
  s->capture = NULL;
  return OK;
}
CUresult cuStreamIsCapturing(Stream *s, int *status) { ENTER(1, 1); *status = is_stream(s) && s->capture; return OK; }
CUresult cuGraphInstantiateWithFlags(Graph **exec, Graph *graph, unsigned long long flags) {
  ENTER(1, 1);
  (void)flags;
  if (!graph || graph->magic != GRAPHS) return INVALID_HANDLE;
  Graph *copied = calloc(1, sizeof *copied);
  copied->magic = GRAPHS;
  copied->last = &copied->first;
  count(GRAPHS, 1);
  Stream into = {STREAMS, copied};
  for (Op *op = graph->first; op; op = op->next) submit(&into, *op);
  *exec = copied;
  return OK;
}
CUresult cuGraphLaunch(Graph *exec, Stream *s) {
  ENTER(1, 1);
  if (!exec || exec->magic != GRAPHS || !is_stream(s)) return INVALID_HANDLE;
  for (Op *op = exec->first; op; op = op->next) submit(s, *op);
  return OK;
}
CUresult cuGraphDestroy(Graph *graph) { ENTER(1, 0); if (!graph || graph->magic != GRAPHS) return INVALID_HANDLE; drop(graph); return OK; }
CUresult cuGraphExecDestroy(Graph *exec) { ENTER(1, 0); if (!exec || exec->magic != GRAPHS) return INVALID_HANDLE; drop(exec); return OK; }

/* ---- how cuda-python finds the functions: by base name; the newest form is the only one here ---- */
CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
  static const char *suffixes[] = {"_v4", "_v3", "_v2", ""};
  char name[128];
  (void)version; (void)flags;
  *function = NULL;
  if (!strcmp(symbol, "cuGraphInstantiate")) symbol = "cuGraphInstantiateWithFlags";
  for (int i = 0; i < 4 && !*function; i++) {
    snprintf(name, sizeof name, "%s%s", symbol, suffixes[i]);
    *function = dlsym(RTLD_DEFAULT, name);
    Dl_info info;
    /* Only our own functions: other libraries of the process may export the same names. */
    if (*function && (!dladdr(*function, &info) || !strstr(info.dli_fname, "libcuda.so"))) *function = NULL;
  }
  if (status) *status = *function ? 0 : 1;
  return *function ? OK : NOT_FOUND;
}
CUresult cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}
