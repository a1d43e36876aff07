/* GCC's atomic builtins are generic; these inlines give Cython one type each.
   Publish with release, read with acquire (x86 and ARM alike). */
#ifndef LBFAST_ATOMIC_H
#define LBFAST_ATOMIC_H
#include <stdint.h>

static inline int64_t atomic_add64(int64_t *p, int64_t n) { return __atomic_add_fetch(p, n, __ATOMIC_ACQ_REL); }
static inline int64_t atomic_load64(const int64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void atomic_store64(int64_t *p, int64_t n) { __atomic_store_n(p, n, __ATOMIC_RELEASE); }
static inline uint32_t atomic_add32(uint32_t *p, uint32_t n) { return __atomic_add_fetch(p, n, __ATOMIC_ACQ_REL); }
static inline uint32_t atomic_load32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void atomic_store32(uint32_t *p, uint32_t n) { __atomic_store_n(p, n, __ATOMIC_RELEASE); }
static inline int atomic_swap32(uint32_t *p, uint32_t expected, uint32_t n) {
    return __atomic_compare_exchange_n(p, &expected, n, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
static inline void atomic_or8(uint8_t *p, uint8_t bits) { __atomic_or_fetch(p, bits, __ATOMIC_ACQ_REL); }
static inline void fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
static inline void fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
static inline void cpu_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}
#endif
