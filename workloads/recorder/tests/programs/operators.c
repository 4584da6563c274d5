// An allocator with C++ operators of its own, which do not go through malloc: behind the recorder
// they must not be called, except when there is no memory.
#include "sigsafe.c"

long operator_calls;
void _ZSt17__throw_bad_allocv(void) __attribute__((noreturn));  // std::__throw_bad_alloc()

static void *throwing(void *block) {
    operator_calls++;
    if (!block) _ZSt17__throw_bad_allocv();
    return block;
}
static void *quiet(void *block) {
    operator_calls++;
    return block;
}
static void release(void *block) {
    operator_calls++;
    give_back(block);
}

void *_Znwm(size_t n) { return throwing(allocate(n)); }
void *_Znam(size_t n) { return throwing(allocate(n)); }
void *_ZnwmRKSt9nothrow_t(size_t n) { return quiet(allocate(n)); }
void *_ZnamRKSt9nothrow_t(size_t n) { return quiet(allocate(n)); }
void *_ZnwmSt11align_val_t(size_t n, size_t a) { return throwing(carve(a, n)); }
void *_ZnamSt11align_val_t(size_t n, size_t a) { return throwing(carve(a, n)); }
void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t n, size_t a) { return quiet(carve(a, n)); }
void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t n, size_t a) { return quiet(carve(a, n)); }
void _ZdlPv(void *block) { release(block); }
void _ZdaPv(void *block) { release(block); }
void _ZdlPvm(void *block, size_t n) { (void)n; release(block); }
void _ZdaPvm(void *block, size_t n) { (void)n; release(block); }
void _ZdlPvmSt11align_val_t(void *block, size_t n, size_t a) { (void)n, (void)a; release(block); }
void _ZdaPvmSt11align_val_t(void *block, size_t n, size_t a) { (void)n, (void)a; release(block); }
void _ZdlPvSt11align_val_t(void *block, size_t a) { (void)a; release(block); }
void _ZdaPvSt11align_val_t(void *block, size_t a) { (void)a; release(block); }
