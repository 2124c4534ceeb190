/* source_fuzz.c: any bytes as a source file: parsed, printed, and parsed again.
 *
 * Nothing may crash, and what prints must be the same tree. Build with -fsanitize=fuzzer,address,undefined. */
#include <string.h>

#include "ast.h"
#include "words.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    diag_reset();
    Arena *arena = arena_new();
    const char *text = arena_copy(arena, data, bytes);
    Ast *tree = ast_parse(arena, diag_add_file("fuzz.moe", text, bytes), text, bytes);
    if (tree != NULL) {
        const char *printed = ast_print(tree, arena);
        Ast *again = ast_parse(arena, diag_add_file("printed.moe", printed, strlen(printed)), printed, strlen(printed));
        if (again == NULL || !ast_equal(tree, again)) diag_bug("the printed tree is another:\n%s", printed);
    }
    arena_free(arena);
    return 0;
}
