// Allocates with a frame pointer register that holds anything, from code without unwind tables, where the walk has nothing
// else to believe. It must survive, whatever is read.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// void *with_rbp(size_t size, uint64_t rbp): malloc(size) with that rbp.
void *with_rbp(size_t size, uint64_t rbp);
__asm__(
    ".pushsection .text.with_rbp,\"ax\",@progbits\n"
    ".globl with_rbp\n"
    ".type with_rbp, @function\n"
    "with_rbp:\n"
    "    push %rbp\n"
    "    mov %rsi, %rbp\n"
    "    call malloc@PLT\n"
    "    pop %rbp\n"
    "    ret\n"
    ".size with_rbp, . - with_rbp\n"
    ".popsection\n");

int main(void) {
    uint64_t here = (uint64_t)__builtin_frame_address(0);
    long page = sysconf(_SC_PAGESIZE);
    // A page that cannot be read, and one that ends where nothing is mapped.
    char *two = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(two + page, page, PROT_NONE);
    // Frames that lead into the unreadable page, into themselves, and down.
    uint64_t *frames = (uint64_t *)(here & ~15UL);
    uint64_t values[] = {0, 1, 8, 0xfff, here, here + 1, here + 8, here - 64, here + (1UL << 20), here + (1UL << 30),
        (uint64_t)two, (uint64_t)(two + page - 8), (uint64_t)(two + page), (uint64_t)frames, 0x7fffffffeff8, 0x7ffffffff000,
        1UL << 47, 0xffff800000000000, UINT64_MAX, UINT64_MAX - 7, UINT64_MAX - 15, (uint64_t)&main, (uint64_t)&values};
    // Plausible frames on this stack whose next frame is one of the values.
    struct { uint64_t next, back; } fake;
    unsigned count = sizeof values / sizeof *values;
    for (unsigned round = 0; round < 3; round++)
        for (unsigned at = 0; at < count; at++) {
            free(with_rbp(100 + at, values[at]));
            fake.next = values[at];
            fake.back = (uint64_t)&main + 4;
            __asm__ volatile("" ::: "memory");
            free(with_rbp(200 + at, (uint64_t)&fake));
        }
    puts("survived");
    return 0;
}
