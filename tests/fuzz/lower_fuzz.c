/* lower_fuzz.c: any bytes as a source file: parsed and lowered; what is accepted verifies.
 *
 * Start from the sources of tests/frontend and examples. Build with -fsanitize=fuzzer,address,undefined. */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "frontend.h"
#include "words.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    int fd = memfd_create("fuzz.moe", 0);
    if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes) return -1;
    diag_reset();
    Arena *arena = arena_new();
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    Module *m = frontend_lower(arena, path, &(FrontOptions){.import_dir = "/nonexistent"});
    const char *broken = m == NULL ? NULL : module_verify(m, arena);
    if (broken != NULL) diag_bug("lowered to an invalid module: %s", broken);
    if (m == NULL && diag_errors() == 0) diag_bug("refused without a message");
    arena_free(arena);
    close(fd);
    return 0;
}
