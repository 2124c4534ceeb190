/* npy_fuzz.c: any bytes as an .npy file for the interpreter (the runtime has a reader of its own).
 *
 * Build with -fsanitize=fuzzer,address,undefined. */
#include <string.h>

#include "support/diag.h"
#include "support/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    Arena *arena = arena_new();
    Npy a;
    const char *wrong = npy_parse(arena, data, bytes, &a);
    double sum = 0;
    for (int64_t i = 0; wrong == NULL && i < a.n; i++) sum += a.at[i];
    if (wrong != NULL && wrong[0] == '\0') diag_bug("refused without a message, %g", sum);
    arena_free(arena);
    return 0;
}
