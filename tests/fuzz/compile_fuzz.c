/* compile_fuzz.c: any bytes as a source file, through the whole compiler: lowered, all passes, report, emitted C.
 *
 * What the front end accepts, the passes compile or refuse with a message that has a place; neither their own checks
 * (diag_bug) nor a sanitizer may fire. Build with -fsanitize=fuzzer,address,undefined. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codegen.h"
#include "frontend.h"
#include "passes.h"
#include "words.h"

static Topology *machine(void) {
    static Topology *t;
    const char *error = NULL;
    if (t == NULL) t = topology_load(arena_new(), "pack:2 core:4 pu:1", &error);
    if (t == NULL) diag_bug("the machine: %s", error);
    return t;
}

/* A program of ten thousand instructions is legal, and takes longer than a fuzzer has. */
static bool small(const Module *m) {
    int n = 0;
    for (int f = 0; f < m->funcs.n; f++)
        for (const Inst *i = m->funcs.at[f]->body->first; i != NULL; i = i->next) n++;
    return n < 1000;
}

static void compile(Module *m, Arena *arena) {
    PassOptions opt = {.verify_each = true};
    bool ok = passes_run(m, NULL, &opt, machine(), NULL, NULL);
    if (ok != (diag_errors() == 0)) diag_bug("refused without a message");
    if (!ok) return;
    plan_report(m, machine(), NULL, false, arena);
    codegen_emit(m, "cpu", arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    int fd = memfd_create("fuzz.moe", 0);
    if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes) return -1;
    diag_reset();
    Arena *arena = arena_new();
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    Module *m = frontend_lower(arena, path, &(FrontOptions){.import_dir = "/nonexistent"});
    if (m != NULL && small(m)) compile(m, arena);
    arena_free(arena);
    close(fd);
    return 0;
}
