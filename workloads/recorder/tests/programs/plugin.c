// A library that is opened at run time: allocates in its constructor, on demand, and in its destructor.
#include <stdlib.h>

void *plugin_take(size_t size) { return malloc(size); }
void plugin_give(void *block) { free(block); }
__attribute__((constructor)) static void begin(void) { free(malloc(4001)); }
__attribute__((destructor)) static void end(void) { free(malloc(4002)); }
