/* main.c: the driver; read this first.
 *
 * Options, then the phases as a list: read (a .moe is parsed and lowered, an .ir parsed), run the pass table, and
 * then one product: text of a stage, the plan, or a binary. Only this file sees the front end, the passes and the
 * code generator. Exit codes: 0; 1 error in the user's input; 2 usage; 70 compiler bug. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ast.h"
#include "codegen.h"
#include "compare.h"
#include "frontend.h"
#include "interpret.h"
#include "ir.h"
#include "options.h"
#include "passes.h"

#define MOECC_VERSION "0.1"

static Arena *arena;

static int usage(const char *why, const char *what) {
    return options_usage(why, what, arena);
}

/* ---- reading ------------------------------------------------------------------------------------------------------
 */

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcmp(s + n - k, tail) == 0;
}

static Module *read_ir(const char *path) {
    size_t bytes;
    char *text = frontend_read_file(arena, path, &bytes);
    return text == NULL ? NULL : module_parse(arena, path, text, bytes);
}

/* NULL after an error; a module read is a module that verifies. */
static Module *read_module(const Options *o, const char *path) {
    bool ir = ends_with(path, ".ir");
    FrontOptions front = {.defs = o->defs.at, .ndefs = o->defs.n, .mesh = o->mesh};
    Module *m = ir ? read_ir(path) : frontend_lower(arena, path, &front);
    if (m == NULL || diag_errors() > 0) return NULL;
    const char *broken = module_verify(m, arena);
    if (broken == NULL) return m;
    if (!ir) diag_bug("after lowering: %s", broken);
    fprintf(stderr, "%s: error: %s\n", path, broken);
    return NULL;
}

/* ---- products -----------------------------------------------------------------------------------------------------
 */

typedef struct Stage {
    const char *emit, *stop_after; /* stop_after NULL: before the first pass */
} Stage;

static const Stage stages[] = {
    {"ast", NULL},       {"ir", NULL},        {"sharded", "propagate"}, {"local", "partition"},
    {"placed", "place"}, {"planned", "plan"}, {"dot", "place"},         {"c", "plan"},
};

static const Stage *find_stage(const char *emit) {
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        if (strcmp(stages[i].emit, emit) == 0) return &stages[i];
    return NULL;
}

static int write_text(const Options *o, const char *text) {
    return codegen_write_file(o->output == NULL ? "-" : o->output, text) ? 0 : EXIT_USER_ERROR;
}

/* --check-passes: each stage runs in the interpreter on made-up arguments, twice: real numbers in f64, and integers,
 * whose sums are exact in any order, so that results compare to the bit. */
enum { CHECKS = 2 };
static const CompareOptions check_options[CHECKS] = {
    {.eval = {.f64 = true, .steps = 10}, .inputs = COMPARE_normal, .tolerance = 1e-10},
    {.eval = {.f64 = true, .steps = 10}, .inputs = COMPARE_integers, .tolerance = 1e-10},
};

static void check_stage(Module *m, const char *pass, void *data) {
    for (int i = 0; i < CHECKS; i++) {
        const char *difference = compare_stage(((Compare **)data)[i], m);
        if (difference != NULL) diag_bug("%s changed what the program computes: %s", pass, difference);
    }
    fprintf(stderr, "%-10s same results\n", pass);
}

static int build(const Options *o, const Module *m) {
    if (o->output == NULL) {
        fputs("moecc: no output: give -o FILE, --emit=STAGE or --plan\n", stderr);
        return EXIT_USAGE;
    }
    BuildOptions b = {.debug = o->debug, .verbose = o->verbose, .show_only = o->show_only};
    return codegen_build(codegen_emit(m, o->target, arena), o->output, &b) ? 0 : EXIT_USER_ERROR;
}

/* ---- commands -----------------------------------------------------------------------------------------------------
 */

static PassOptions pass_options(const Options *o) {
    return (PassOptions){.dump_after = o->dump_after,
                         .stop_after = o->stop_after,
                         .time_passes = o->time_passes,
                         .verify_each = o->verify_each,
                         .no_fuse = o->no_fuse,
                         .explain_onehot = o->explain_onehot,
                         .origins = origins_new(arena)};
}

/* `run`: as it was read, or after the passes that --stop-after asks for. */
static int run(Options *o, Module *m, const Topology *topo) {
    if (o->run.entry == NULL) return usage("the name of an entry is missing after", "run FILE");
    PassOptions pass = pass_options(o);
    if (o->stop_after != NULL && !passes_run(m, o->start_at, &pass, topo, NULL, NULL)) return EXIT_USER_ERROR;
    o->run.in = o->in.at;
    o->run.nin = o->in.n;
    o->run.eval.steps = 1;
    return interpret(m, &o->run, arena) ? 0 : EXIT_USER_ERROR;
}

/* `diff`: both sources with the same options. */
static int diff(const Options *o, Module *m, const Topology *topo) {
    if (o->other == NULL) return usage("a second input is missing after", "diff FILE");
    Module *n = read_module(o, o->other);
    PassOptions pass = {.no_fuse = o->no_fuse};
    if (n == NULL || !passes_run(m, NULL, &pass, topo, NULL, NULL) || !passes_run(n, NULL, &pass, topo, NULL, NULL))
        return EXIT_USER_ERROR;
    return write_text(o, plan_diff(m, n, topo, arena));
}

/* --show=NAME or NAME:svg. */
static int show(const Options *o, const Module *m) {
    bool svg = ends_with(o->show, ":svg");
    const char *text =
        show_blocks(m, svg ? arena_printf(arena, "%.*s", (int)strlen(o->show) - 4, o->show) : o->show, svg, arena);
    return text == NULL ? EXIT_USER_ERROR : write_text(o, text);
}

/* What is asked about the plan, or else the binary. */
static int product(const Options *o, const Module *m, const Stage *stage, const PassOptions *pass,
                   const Topology *topo) {
    const char *text = NULL;
    if (o->show != NULL) return show(o, m);
    if (o->explain != NULL) {
        text = explain_sharding(m, topo, pass->origins, o->explain, arena);
        return text == NULL ? EXIT_USER_ERROR : write_text(o, text);
    }
    if (o->plan != NULL) text = plan_report(m, topo, pass->origins, strcmp(o->plan, "json") == 0, arena);
    if (text != NULL && write_text(o, text) != 0) return EXIT_USER_ERROR;
    Budget budget = {-1, -1, o->forbid};
    if (o->max_memory != NULL) budget.memory = options_bytes(o->max_memory);
    if (o->max_bytes != NULL) budget.bytes = options_bytes(o->max_bytes);
    if (!budget_check(m, topo, pass->origins, &budget, arena)) return EXIT_USER_ERROR;
    if (text != NULL) return 0;
    if (stage != NULL && strcmp(stage->emit, "c") == 0) return write_text(o, codegen_emit(m, o->target, arena));
    if (stage != NULL && strcmp(stage->emit, "dot") == 0) return write_text(o, graph_dot(m, arena));
    if (stage != NULL || o->stop_after != NULL) return write_text(o, module_print(m, arena, (PrintOptions){0}));
    return o->check_passes && o->output == NULL ? 0 : build(o, m);
}

/* From the module on: the pass table, then the product that the options ask for. */
static int compile(Options *o, Module *m) {
    const char *error = NULL;
    const Topology *topo = topology_load(arena, o->topology, &error);
    if (topo == NULL) {
        fprintf(stderr, "moecc: --topology=%s: %s\n", o->topology, error);
        return EXIT_USER_ERROR;
    }
    if (strcmp(o->command, "run") == 0) return run(o, m, topo);
    if (strcmp(o->command, "diff") == 0) return diff(o, m, topo);
    const Stage *stage = o->emit == NULL ? NULL : find_stage(o->emit);
    if (stage != NULL && stage->stop_after == NULL) return write_text(o, module_print(m, arena, (PrintOptions){0}));
    PassOptions pass = pass_options(o);
    if (stage != NULL) pass.stop_after = stage->stop_after;
    if (o->explain != NULL) pass.stop_after = "place";
    if (o->show != NULL) pass.stop_after = "propagate";
    Compare *check[CHECKS];
    for (int i = 0; i < CHECKS && o->check_passes; i++) check[i] = compare_new(arena, &check_options[i]);
    if (o->check_passes) check_stage(m, "lower", check);
    if (!passes_run(m, o->start_at, &pass, topo, o->check_passes ? check_stage : NULL, check)) return EXIT_USER_ERROR;
    return product(o, m, stage, &pass, topo);
}

static bool same_file(const char *a, const char *b) {
    struct stat sa, sb;
    return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* What the options say together, and values that only the driver can judge; 0 or the exit status. */
static int check_options_agree(const Options *o) {
    const char *ids[] = {o->dump_after, o->stop_after, o->start_at};
    for (int i = 0; i < 3; i++)
        if (ids[i] != NULL && !passes_has(ids[i]) && (i > 0 || strcmp(ids[i], "all") != 0))
            return usage("no such pass (see --passes):", ids[i]);
    const char *products[] = {o->emit, o->plan, o->stop_after, o->explain, o->show};
    int asked = 0;
    for (int i = 0; i < 5; i++) asked += products[i] != NULL;
    if (asked > 1)
        return usage("one of --emit, --plan, --stop-after, --explain-sharding and --show at a time, for", o->input);
    const char *amounts[] = {o->max_memory, o->max_bytes};
    for (int i = 0; i < 2; i++)
        if (amounts[i] != NULL && options_bytes(amounts[i]) < 0)
            return usage("expected a number of bytes such as 4096 or 1.5GiB, not", amounts[i]);
    const char *unknown = o->forbid == NULL ? NULL : budget_unknown(o->forbid, arena);
    if (unknown != NULL) return usage("--forbid: no such collective:", unknown);
    if (o->emit != NULL && find_stage(o->emit) == NULL) return usage("no such stage for --emit:", o->emit);
    if (o->plan != NULL && strcmp(o->plan, "text") != 0 && strcmp(o->plan, "json") != 0)
        return usage("no such form for --plan (text, json):", o->plan);
    if (!codegen_has_target(o->target)) return usage("no such target:", o->target);
    if (o->output != NULL && same_file(o->input, o->output)) return usage("the output is the input,", o->output);
    return 0;
}

/* The exit status after printing: a full disk is an error. */
static int printed(void) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return 0;
    fprintf(stderr, "moecc: cannot write standard output: %s\n", strerror(errno));
    return EXIT_USER_ERROR;
}

int main(int argc, char **argv) {
    arena = arena_new();
    Options o = {.command = "compile", .target = "cpu", .topology = "auto"};
    int bad = options_parse(&o, argc, argv, arena);
    if (bad != 0) return bad;
    if (o.help) return options_help(stdout, arena), printed();
    if (o.version) return puts("moecc " MOECC_VERSION), printed();
    if (o.list_passes) return passes_list(stdout), printed();
    if (o.input == NULL) return options_help(stderr, arena), EXIT_USAGE;
    bad = check_options_agree(&o);
    if (bad != 0) return bad;
    if (o.emit != NULL && strcmp(o.emit, "ast") == 0) {
        Ast *ast = frontend_parse(arena, o.input);
        return ast == NULL ? EXIT_USER_ERROR : write_text(&o, ast_print(ast, arena));
    }
    Module *m = read_module(&o, o.input);
    if (m == NULL) return EXIT_USER_ERROR;
    int status = strcmp(o.command, "check") == 0 ? 0 : compile(&o, m);
    arena_free(arena);
    return status;
}
