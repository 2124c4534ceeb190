/* ir_fuzz.c: any bytes as IR text: parsed and verified; what is accepted prints as text that reads back to the same,
 * and goes through all passes, the report and the emitter.
 *
 * A module that verifies is legal input of the passes, so neither the passes' own checks (diag_bug) nor a sanitizer may
 * fire. Sizes are bounded here only so that a run takes milliseconds. Build with -fsanitize=fuzzer,address,undefined.
 */
#include <string.h>

#include "codegen.h"
#include "passes.h"
#include "words.h"

static Topology *machine(void) {
    static Topology *t;
    const char *error = NULL;
    if (t == NULL) t = topology_load(arena_new(), "pack:2 core:4 pu:1", &error);
    if (t == NULL) diag_bug("the machine: %s", error);
    return t;
}

static void round_trip(const Module *m, Arena *arena) {
    const char *text = module_print(m, arena, (PrintOptions){0});
    const Module *again = module_parse(arena, "printed.ir", text, strlen(text));
    if (again == NULL) diag_bug("what was printed does not parse:\n%s", text);
    const char *broken = module_verify(again, arena);
    if (broken != NULL) diag_bug("what was printed does not verify: %s\n%s", broken, text);
    if (strcmp(module_print(again, arena, (PrintOptions){0}), text) != 0) diag_bug("another module:\n%s", text);
}

static void compile(Module *m, Arena *arena) {
    PassOptions opt = {.verify_each = true};
    if (!passes_run(m, NULL, &opt, machine(), NULL, NULL)) return;
    plan_report(m, machine(), NULL, true, arena);
    codegen_emit(m, "cpu", arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    diag_reset();
    Arena *arena = arena_new();
    char *text = arena_alloc(arena, bytes + 1);
    if (bytes > 0) memcpy(text, data, bytes);
    Module *m = module_parse(arena, "fuzz.ir", text, bytes);
    if (m == NULL && diag_errors() == 0) diag_bug("refused without a message");
    if (m != NULL && module_verify(m, arena) == NULL) {
        round_trip(m, arena);
        compile(m, arena);
    }
    arena_free(arena);
    return 0;
}
