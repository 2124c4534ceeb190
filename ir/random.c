/* random.c: Philox4x32-10 and what is drawn with it. Constants and rounds are those of the paper; random.h has the
 * contract. */
#include "random.h"

#include <math.h>

enum { ROUNDS = 10, INIT_MARK = 0x696e6974 /* "init" */ };

Philox philox(uint32_t key0, uint32_t key1, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t p = (uint64_t)c0 * 0xD2511F53u, q = (uint64_t)c2 * 0xCD9E8D57u;
        c0 = (uint32_t)(q >> 32) ^ c1 ^ key0;
        c2 = (uint32_t)(p >> 32) ^ c3 ^ key1;
        c1 = (uint32_t)q;
        c3 = (uint32_t)p;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return (Philox){{c0, c1, c2, c3}};
}

static Philox draw_at(const Draw *d, uint64_t index) {
    return philox(d->seed, d->site, (uint32_t)index, (uint32_t)(index >> 32), d->step, d->loop);
}

double random_uniform(const Draw *d, uint64_t index) {
    return (draw_at(d, index).x[0] >> 8) * 0x1p-24;
}

/* Box and Muller; u1 > 0. */
double random_normal(const Draw *d, uint64_t index) {
    const double turn = 6.283185307179586;
    Philox p = draw_at(d, index);
    double u1 = ((p.x[0] >> 8) + 1) * 0x1p-24, u2 = (p.x[1] >> 8) * 0x1p-24;
    return sqrt(-2 * log(u1)) * cos(turn * u2);
}

Draw random_init(uint32_t seed, const char *path) {
    uint32_t hash = 0x811c9dc5u; /* FNV-1a */
    for (; *path != '\0'; path++) hash = (hash ^ (unsigned char)*path) * 0x01000193u;
    return (Draw){seed, hash, 0, INIT_MARK};
}
