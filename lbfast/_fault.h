/* Fault doors: under LBFAST_DEBUG a test can make the nth call through a door fail.
   The doors live in one process-wide array named by the environment-free call fault_arm();
   in a release build fault() is the constant 0 and the branch folds away. */
#ifndef LBFAST_FAULT_H
#define LBFAST_FAULT_H
#include "_debug.h"
#if LBFAST_DEBUG
struct fault_door { int after, times, error; };
/* weak: every extension that includes this header shares the one array of the process,
   as long as they are loaded with RTLD_GLOBAL; a single extension always sees its own. */
__attribute__((weak)) struct fault_door fault_doors[16];
static inline int fault(int door) {
    struct fault_door *d = &fault_doors[door];
    if (d->times <= 0) return 0;
    if (d->after > 0) { d->after--; return 0; }
    d->times--;
    return -d->error;
}
static inline void fault_arm(int door, int after, int times, int error) {
    fault_doors[door].after = after; fault_doors[door].times = times; fault_doors[door].error = error;
}
#else
static inline int fault(int door) { (void)door; return 0; }
static inline void fault_arm(int door, int after, int times, int error) { (void)door; (void)after; (void)times; (void)error; }
#endif
#endif
