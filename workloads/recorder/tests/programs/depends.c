// What a library depends on that is opened with RTLD_DEEPBIND.
#include <stdlib.h>

void *depends_take(size_t size) { return malloc(size); }
