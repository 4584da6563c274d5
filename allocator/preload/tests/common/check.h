/* What the C programs of these tests expect: a line on standard error and status 1 where it is not so. By _exit, as
   handlers and fork children check, too. */
#include <stdio.h>
#include <unistd.h>
#define CHECK(c) do { if (!(c)) { fprintf(stderr, "line %d: %s\n", __LINE__, #c); _exit(1); } } while (0)
