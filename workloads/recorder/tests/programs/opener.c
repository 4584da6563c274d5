// A library that opens others: its own RUNPATH and folder count.
#include <dlfcn.h>

void *opener_open(const char *file, int flags) { return dlopen(file, flags); }
