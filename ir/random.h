/* random.h: the random numbers of the language, by definition (Philox4x32-10; Salmon et al., "Parallel Random Numbers:
 * As Easy as 1, 2, 3", SC'11).
 *
 * A number is a function of a key and a counter, so it depends neither on the mesh nor on the order of evaluation. The
 * runtime computes the same in f32 (moe_math.h); here it is f64, rounded by the caller. */
#ifndef MOECC_RANDOM_H
#define MOECC_RANDOM_H

#include <stdint.h>

typedef struct Philox {
    uint32_t x[4];
} Philox;

Philox philox(uint32_t key0, uint32_t key1, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3);

/* One element of a draw: `site` says which draw, `index` is the element's place in the whole tensor, row-major. */
typedef struct Draw {
    uint32_t seed, site, step, loop;
} Draw;

double random_uniform(const Draw *d, uint64_t index); /* [0, 1), a multiple of 2^-24 */
double random_normal(const Draw *d, uint64_t index);  /* mean 0, deviation 1 */

/* The draw that initialises the variable that files call `path`. */
Draw random_init(uint32_t seed, const char *path);

#endif
