/* What a program may say to a recording that it runs under. Include this file; there is nothing to link with. Outside a
   recording every call does nothing.

       #include "heaplab.h"
       heaplab_mark("load");        // a phase begins
       heaplab_pause();             // leave events out from here on ...
       heaplab_resume();            // ... to here
*/
#ifndef HEAPLAB_H
#define HEAPLAB_H
#ifdef __cplusplus
extern "C" {
#endif
/* Weak: defined by libheaplab_recorder.so where a program runs under `heaplab record`, else null. */
extern void heaplab_mark(const char *name) __attribute__((weak));
extern void heaplab_pause(void) __attribute__((weak));
extern void heaplab_resume(void) __attribute__((weak));
extern int heaplab_is_recording(void) __attribute__((weak));
/* Calls of an allocator of the program's own, which no library can stand in front of: after an allocation (with its size and
   the alignment asked for, 0 for the default), before a free, and around what may move a block. */
extern void heaplab_allocated(void *block, unsigned long size, unsigned long alignment) __attribute__((weak));
extern void heaplab_freeing(void *block) __attribute__((weak));
extern void heaplab_reallocating(void *block) __attribute__((weak));
extern void heaplab_reallocated(void *block, unsigned long size) __attribute__((weak));
#ifdef __cplusplus
}
#endif
#define HEAPLAB_CALL_(function, arguments) ((void)(function ? (function arguments, 0) : 0))
/* In these the name in parentheses is the function itself, called only where there is one. */
#define heaplab_mark(name) HEAPLAB_CALL_((heaplab_mark), (name))
#define heaplab_pause() HEAPLAB_CALL_((heaplab_pause), ())
#define heaplab_resume() HEAPLAB_CALL_((heaplab_resume), ())
#define heaplab_is_recording() ((heaplab_is_recording) ? (heaplab_is_recording)() : 0)
#define heaplab_allocated(block, size, alignment) HEAPLAB_CALL_((heaplab_allocated), (block, size, alignment))
#define heaplab_freeing(block) HEAPLAB_CALL_((heaplab_freeing), (block))
#define heaplab_reallocating(block) HEAPLAB_CALL_((heaplab_reallocating), (block))
#define heaplab_reallocated(block, size) HEAPLAB_CALL_((heaplab_reallocated), (block, size))
#define HEAPLAB_MARK(name) heaplab_mark(name)
#define HEAPLAB_PAUSE() heaplab_pause()
#define HEAPLAB_RESUME() heaplab_resume()
#define HEAPLAB_IS_RECORDING() heaplab_is_recording()
#define HEAPLAB_ALLOCATED(block, size, alignment) heaplab_allocated(block, size, alignment)
#define HEAPLAB_FREEING(block) heaplab_freeing(block)
#define HEAPLAB_REALLOCATING(block) heaplab_reallocating(block)
#define HEAPLAB_REALLOCATED(block, size) heaplab_reallocated(block, size)
#endif
