// Every form of operator new and delete; with REPLACED some are the program's own, with blocks
// that only its own delete can free.
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <new>

static long made, freed;
static void *volatile kept;

#ifdef REPLACED
void *operator new(std::size_t size) {
    char *block = static_cast<char *>(std::malloc(size + 64));
    if (!block) throw std::bad_alloc();
    return block + 64;
}
void operator delete(void *block) noexcept {
    if (block) std::free(static_cast<char *>(block) - 64);
}
void operator delete(void *block, std::size_t) noexcept { operator delete(block); }
#endif

struct alignas(256) Wide { char bytes[300]; };

template <typename T> static void pairs(int count) {
    for (int i = 0; i < count; i++) {
        T *one = new T;
        kept = one;
        delete one;  // sized, aligned where T is
        T *many = new T[5];
        kept = many;
        delete[] many;
        T *tried = new (std::nothrow) T;
        kept = tried;
        delete tried;
        made += 3, freed += 3;
    }
}

int main() {
    pairs<long>(100);
    pairs<Wide>(100);
    void *empty = operator new(0);
    if (!empty) return 2;
    operator delete(empty);
    operator delete(nullptr);
    void *aligned = operator new(10, std::align_val_t(64));
    if (reinterpret_cast<unsigned long>(aligned) % 64) return 3;
    operator delete(aligned, std::align_val_t(64), std::nothrow);
    made += 2, freed += 2;
    std::size_t volatile huge = ~std::size_t(0) >> 2;
    int caught = 0;
    try { kept = operator new(huge); } catch (const std::bad_alloc &) { caught++; }
    try { kept = operator new[](huge, std::align_val_t(128)); } catch (const std::bad_alloc &) { caught++; }
    if (caught != 2) return 4;
    if (operator new(huge, std::nothrow)) return 5;
    long *own = static_cast<long *>(dlsym(RTLD_DEFAULT, "operator_calls"));
    std::printf("%ld %ld %ld\n", made, freed, own ? *own : -1);
    return 0;
}
