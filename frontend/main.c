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
#include "passes.h"
#include "support/str.h"

#define MOECC_VERSION "0.1"

typedef struct Options {
    const char *command; /* "compile", "check", "run" */
    const char *input, *output;
    const char *target, *mesh, *topology;
    const char *emit, *plan;
    const char *start_at;
    const char *level; /* of optimization */
    bool debug, check_passes, list_passes, help, version, verbose, show;
    PassOptions pass;
    InterpretOptions run; /* of "run" */
    VEC(const char *) defs, in;
} Options;

static Arena *arena;

/* ---- options ----------------------------------------------------------------------------------------------------- */

typedef enum OptKind { OPT_FLAG, OPT_VALUE, OPT_MAYBE } OptKind;

typedef struct OptRow {
    const char *name;
    OptKind kind;
    size_t field;
    const char *arg, *doc;
} OptRow;

#define FIELD(f) offsetof(Options, f)
static const OptRow option_rows[] = {
    {"--target", OPT_VALUE, FIELD(target), "cpu", "what to generate code for (default cpu)"},
    {"--mesh", OPT_VALUE, FIELD(mesh), "data=2,expert=4", "sizes of mesh axes, instead of the source's"},
    {"--topology", OPT_VALUE, FIELD(topology), "auto|STRING|FILE", "the machine: hwloc on this one, synthetic, or XML"},
    {"--emit", OPT_VALUE, FIELD(emit), "ast|ir|sharded|local|placed|planned|c", "print a stage instead of building"},
    {"--plan", OPT_MAYBE, FIELD(plan), "json", "report collectives, memory and FLOPs; builds nothing"},
    {"--passes", OPT_FLAG, FIELD(list_passes), NULL, "list the pass table"},
    {"--dump-after", OPT_VALUE, FIELD(pass.dump_after), "PASS|all", "print the IR after a pass, to stderr"},
    {"--stop-after", OPT_VALUE, FIELD(pass.stop_after), "PASS", "stop there and print the IR"},
    {"--start-at", OPT_VALUE, FIELD(start_at), "PASS", "begin there (input is an .ir)"},
    {"--time-passes", OPT_FLAG, FIELD(pass.time_passes), NULL, "milliseconds of each pass, to stderr"},
    {"--verify-each", OPT_FLAG, FIELD(pass.verify_each), NULL, "also round-trip the IR's text after each pass"},
    {"--check-passes", OPT_FLAG, FIELD(check_passes), NULL,
     "interpret the program after each pass and compare with the first"},
    {"--out", OPT_VALUE, FIELD(run.out), "DIR", "run: where results go, as NAME.npy"},
    {"--f64", OPT_FLAG, FIELD(run.eval.f64), NULL, "run: compute in double precision"},
    {"--explain-onehot", OPT_FLAG, FIELD(pass.explain_onehot), NULL, "what became of each einsum of one-hot values"},
    {"-O0", OPT_FLAG, FIELD(pass.no_fuse), NULL, "no fusion"},
    {"-g", OPT_FLAG, FIELD(debug), NULL, "debug information in the binary"},
    {"-v", OPT_FLAG, FIELD(verbose), NULL, "say what is run"},
    {"-###", OPT_FLAG, FIELD(show), NULL, "print the C compiler's command and run nothing"},
    {"--help", OPT_FLAG, FIELD(help), NULL, "this text"},
    {"--version", OPT_FLAG, FIELD(version), NULL, "the version"},
};
enum { OPTION_ROWS = sizeof option_rows / sizeof *option_rows };

static void help(FILE *out) {
    fputs(
        "moecc model.moe -o model [options]   compile to one binary that trains and serves the model\n"
        "moecc check model.moe                diagnostics only\n"
        "moecc stage.ir [options]             go on from a stage's text\n"
        "moecc run model.moe|stage.ir ENTRY   execute a stage in the reference interpreter, on numpy files\n\n"
        "  -o FILE                    the output; with --emit, text goes there instead of stdout\n"
        "  -D NAME=VALUE              value of a dim or const of the source\n"
        "  --in NAME=FILE.npy         run: an argument; once for each\n",
        out);
    for (int i = 0; i < OPTION_ROWS; i++) {
        const OptRow *r = &option_rows[i];
        Str s = str_new(arena);
        str_addf(&s, "%s%s%s%s", r->name,
                 r->arg == NULL         ? ""
                 : r->kind == OPT_MAYBE ? "[="
                                        : "=",
                 r->arg == NULL ? "" : r->arg, r->kind == OPT_MAYBE ? "]" : "");
        fprintf(out, "  %-26s %s\n", s.at, r->doc);
    }
}

static int usage(const char *why, const char *what) {
    fprintf(stderr, "moecc: %s '%s'\n", why, what);
    const char *names[OPTION_ROWS];
    for (int i = 0; i < OPTION_ROWS; i++) names[i] = option_rows[i].name;
    size_t n = strcspn(what, "=");
    const char *near = str_nearest(arena_printf(arena, "%.*s", (int)(n < 100 ? n : 100), what), names, OPTION_ROWS);
    if (what[0] == '-' && near != NULL) fprintf(stderr, "moecc: did you mean %s?\n", near);
    fputs("moecc: try 'moecc --help'\n", stderr);
    return EXIT_USAGE;
}

/* An option of the table, `--name`, `--name=value` or `--name value`; false when it is none of them. */
static bool table_option(Options *o, int argc, char **argv, int *i) {
    const char *arg = argv[*i];
    size_t n = strcspn(arg, "=");
    const char *value = arg[n] == '=' ? arg + n + 1 : NULL;
    for (int k = 0; k < OPTION_ROWS; k++) {
        const OptRow *r = &option_rows[k];
        if (strlen(r->name) != n || strncmp(arg, r->name, n) != 0) continue;
        char *field = (char *)o + r->field;
        if (r->kind == OPT_FLAG) {
            *(bool *)field = true;
            return value == NULL;
        }
        if (value == NULL) value = r->kind == OPT_MAYBE ? "text" : *i + 1 < argc ? argv[++*i] : NULL;
        *(const char **)field = value;
        return value != NULL;
    }
    return false;
}

/* `-oX` or `-o X`: the value, NULL when missing. */
static const char *short_value(int argc, char **argv, int *i) {
    if (argv[*i][2] != '\0') return argv[*i] + 2;
    return ++*i < argc ? argv[*i] : NULL;
}

static int parse_options(Options *o, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (strncmp(arg, "-o", 2) == 0) {
            if ((o->output = short_value(argc, argv, &i)) == NULL) return usage("a file name is missing after", "-o");
        } else if (strncmp(arg, "-D", 2) == 0) {
            const char *def = short_value(argc, argv, &i);
            if (def == NULL || strchr(def, '=') == NULL) return usage("expected NAME=VALUE after", "-D");
            vec_push(arena, o->defs, def);
        } else if (strcmp(arg, "--in") == 0) {
            if (++i == argc || strchr(argv[i], '=') == NULL) return usage("expected NAME=FILE.npy after", arg);
            vec_push(arena, o->in, argv[i]);
        } else if (arg[0] == '-' && arg[1] != '\0') {
            if (!table_option(o, argc, argv, &i))
                return usage("unknown option, or one with a missing or unwanted value,", arg);
        } else if ((strcmp(arg, "check") == 0 || strcmp(arg, "run") == 0) && o->input == NULL &&
                   strcmp(o->command, "compile") == 0) {
            o->command = arg;
        } else if (o->input != NULL && strcmp(o->command, "run") == 0 && o->run.entry == NULL) {
            o->run.entry = arg;
        } else if (o->input != NULL) {
            return usage("one input at a time; a second one is", arg);
        } else {
            o->input = arg;
        }
    }
    return 0;
}

typedef struct Stage {
    const char *emit, *stop_after; /* stop_after NULL: before the first pass */
} Stage;

static const Stage stages[] = {
    {"ast", NULL},       {"ir", NULL},  {"sharded", "propagate"}, {"local", "partition"}, {"placed", "place"},
    {"planned", "plan"}, {"c", "plan"},
};

static const Stage *find_stage(const char *emit) {
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        if (strcmp(stages[i].emit, emit) == 0) return &stages[i];
    return NULL;
}

static bool same_file(const char *a, const char *b) {
    struct stat sa, sb;
    return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* What the options say together; 0 or the exit status. */
static int check_options_agree(const Options *o) {
    const char *ids[] = {o->pass.dump_after, o->pass.stop_after, o->start_at};
    for (int i = 0; i < 3; i++)
        if (ids[i] != NULL && !passes_has(ids[i]) && (i > 0 || strcmp(ids[i], "all") != 0))
            return usage("no such pass (see --passes):", ids[i]);
    if ((o->emit != NULL) + (o->plan != NULL) + (o->pass.stop_after != NULL) > 1)
        return usage("one of --emit, --plan and --stop-after at a time, for", o->input);
    if (o->emit != NULL && find_stage(o->emit) == NULL) return usage("no such stage for --emit:", o->emit);
    if (o->plan != NULL && strcmp(o->plan, "text") != 0 && strcmp(o->plan, "json") != 0)
        return usage("no such form for --plan (text, json):", o->plan);
    if (!codegen_has_target(o->target)) return usage("no such target:", o->target);
    if (o->output != NULL && same_file(o->input, o->output)) return usage("the output is the input,", o->output);
    return 0;
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

static Module *read_module(const Options *o) {
    if (ends_with(o->input, ".ir")) return read_ir(o->input);
    FrontOptions front = {.defs = o->defs.at, .ndefs = o->defs.n, .mesh = o->mesh};
    return frontend_lower(arena, o->input, &front);
}

/* ---- products -----------------------------------------------------------------------------------------------------
 */

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
    BuildOptions b = {.debug = o->debug, .verbose = o->verbose, .show_only = o->show};
    return codegen_build(codegen_emit(m, o->target, arena), o->output, &b) ? 0 : EXIT_USER_ERROR;
}

/* `run`: as it was read, or after the passes that --stop-after asks for. */
static int run(Options *o, Module *m, const Topology *topo) {
    if (o->run.entry == NULL) return usage("the name of an entry is missing after", "run FILE");
    if (o->pass.stop_after != NULL && !passes_run(m, o->start_at, &o->pass, topo, NULL, NULL)) return EXIT_USER_ERROR;
    o->run.in = o->in.at;
    o->run.nin = o->in.n;
    o->run.eval.steps = 1;
    return interpret(m, &o->run, arena) ? 0 : EXIT_USER_ERROR;
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
    const Stage *stage = o->emit == NULL ? NULL : find_stage(o->emit);
    if (stage != NULL && stage->stop_after == NULL) return write_text(o, module_print(m, arena, (PrintOptions){0}));
    if (stage != NULL) o->pass.stop_after = stage->stop_after;
    Compare *check[CHECKS];
    for (int i = 0; i < CHECKS && o->check_passes; i++) check[i] = compare_new(arena, &check_options[i]);
    if (o->check_passes) check_stage(m, "lower", check);
    if (!passes_run(m, o->start_at, &o->pass, topo, o->check_passes ? check_stage : NULL, check))
        return EXIT_USER_ERROR;
    if (o->plan != NULL) return write_text(o, plan_report(m, topo, strcmp(o->plan, "json") == 0, arena));
    if (stage != NULL && strcmp(stage->emit, "c") == 0) return write_text(o, codegen_emit(m, o->target, arena));
    if (stage != NULL || o->pass.stop_after != NULL) return write_text(o, module_print(m, arena, (PrintOptions){0}));
    return o->check_passes && o->output == NULL ? 0 : build(o, m);
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
    int bad = parse_options(&o, argc, argv);
    if (bad != 0) return bad;
    if (o.help) return help(stdout), printed();
    if (o.version) return puts("moecc " MOECC_VERSION), printed();
    if (o.list_passes) return passes_list(stdout), printed();
    if (o.input == NULL) return help(stderr), EXIT_USAGE;
    bad = check_options_agree(&o);
    if (bad != 0) return bad;
    if (o.emit != NULL && strcmp(o.emit, "ast") == 0) {
        Ast *ast = frontend_parse(arena, o.input);
        return ast == NULL ? EXIT_USER_ERROR : write_text(&o, ast_print(ast, arena));
    }
    Module *m = read_module(&o);
    if (m == NULL || diag_errors() > 0) return EXIT_USER_ERROR;
    const char *broken = module_verify(m, arena);
    if (broken != NULL) {
        if (!ends_with(o.input, ".ir")) diag_bug("after lowering: %s", broken);
        fprintf(stderr, "%s: error: %s\n", o.input, broken);
        return EXIT_USER_ERROR;
    }
    int status = strcmp(o.command, "check") == 0 ? 0 : compile(&o, m);
    arena_free(arena);
    return status;
}
