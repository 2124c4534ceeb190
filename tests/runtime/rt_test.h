/* rt_test.h: what the runtime's tests share: random numbers, meshes, teams that must start. */
#ifndef RT_TEST_H
#define RT_TEST_H

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rt.h"

static uint64_t test_state = 1;

static inline uint32_t test_random(uint32_t below) {
    test_state = test_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((test_state >> 33) % below);
}

static inline MoeProgram test_mesh(int naxes, const int64_t *size) {
    MoeProgram p = {.abi = MOE_ABI, .source = "test.moe", .naxes = naxes, .devices = 1};
    static const char *const names[] = {"a", "b", "c", "d"};
    for (int i = 0; i < naxes; i++) {
        p.axis_name[i] = names[i];
        p.axis_size[i] = size[i];
        p.devices *= (int)size[i];
    }
    return p;
}

/* Enters a directory of its own, in memory if the system has such a place. */
static inline const char *test_dir(void) {
    static char memory[] = "/dev/shm/runtime_test.XXXXXX", disk[] = "/tmp/runtime_test.XXXXXX";
    const char *dir = mkdtemp(memory);
    if (!dir) dir = mkdtemp(disk);
    if (!dir || chdir(dir)) exit(1);
    return dir;
}

static inline Team *test_team(const MoeProgram *p, int workers, size_t bytes) {
    Error e = {0};
    Team *t = team_new(p, workers, bytes, &e);
    if (!t) fail_msg("%s", e.text);
    return t;
}

#endif
