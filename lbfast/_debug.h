/* Build switch: 1 under `make debug`, else 0 and every `if LBFAST_DEBUG` folds away. */
#ifndef LBFAST_DEBUG
#define LBFAST_DEBUG 0
#endif
