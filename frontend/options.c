/* options.c: the command line: a table of options, and what does not fit one.
 *
 * A row is a flag or a text; what a text means is checked where it is used. Options and inputs may come in any order.
 * Cost: arguments x options. */
#include "options.h"

#include <stdlib.h>
#include <string.h>

#include "support/str.h"

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
    {"--emit", OPT_VALUE, FIELD(emit), "ast|ir|sharded|local|placed|planned|dot|c",
     "print a stage instead of building"},
    {"--plan", OPT_MAYBE, FIELD(plan), "json", "report collectives, memory and FLOPs; builds nothing"},
    {"--explain-sharding", OPT_VALUE, FIELD(explain), "NAME", "where the sharding of a value came from, and what met"},
    {"--show", OPT_VALUE, FIELD(show), "NAME[:svg]", "which device holds which block of a tensor"},
    {"--max-memory", OPT_VALUE, FIELD(max_memory), "1.5GiB", "refuse a plan that needs more on one device"},
    {"--max-bytes", OPT_VALUE, FIELD(max_bytes), "N", "refuse a plan in which a device receives more in a call"},
    {"--forbid", OPT_VALUE, FIELD(forbid), "all_gather,…", "refuse a plan with such a collective"},
    {"--passes", OPT_FLAG, FIELD(list_passes), NULL, "list the pass table"},
    {"--dump-after", OPT_VALUE, FIELD(dump_after), "PASS|all", "print the IR after a pass, to stderr"},
    {"--stop-after", OPT_VALUE, FIELD(stop_after), "PASS", "stop there and print the IR"},
    {"--start-at", OPT_VALUE, FIELD(start_at), "PASS", "begin there (input is an .ir)"},
    {"--time-passes", OPT_FLAG, FIELD(time_passes), NULL, "milliseconds of each pass, to stderr"},
    {"--verify-each", OPT_FLAG, FIELD(verify_each), NULL, "also round-trip the IR's text after each pass"},
    {"--check-passes", OPT_FLAG, FIELD(check_passes), NULL,
     "interpret the program after each pass and compare with the first"},
    {"--out", OPT_VALUE, FIELD(run.out), "DIR", "run: where results go, as NAME.npy"},
    {"--f64", OPT_FLAG, FIELD(run.eval.f64), NULL, "run: compute in double precision"},
    {"--explain-onehot", OPT_FLAG, FIELD(explain_onehot), NULL, "what became of each einsum of one-hot values"},
    {"-O0", OPT_FLAG, FIELD(no_fuse), NULL, "no fusion"},
    {"-g", OPT_FLAG, FIELD(debug), NULL, "debug information in the binary"},
    {"-v", OPT_FLAG, FIELD(verbose), NULL, "say what is run"},
    {"-###", OPT_FLAG, FIELD(show_only), NULL, "print the C compiler's command and run nothing"},
    {"--help", OPT_FLAG, FIELD(help), NULL, "this text"},
    {"--version", OPT_FLAG, FIELD(version), NULL, "the version"},
};
enum { OPTION_ROWS = sizeof option_rows / sizeof *option_rows };

void options_help(FILE *out, Arena *arena) {
    fputs(
        "moecc model.moe -o model [options]   compile to one binary that trains and serves the model\n"
        "moecc check model.moe                diagnostics only\n"
        "moecc stage.ir [options]             go on from a stage's text\n"
        "moecc diff a.moe b.moe               two plans compared: collectives, bytes, memory, seconds\n"
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

int options_usage(const char *why, const char *what, Arena *arena) {
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

int options_parse(Options *o, int argc, char **argv, Arena *arena) {
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (strncmp(arg, "-o", 2) == 0) {
            if ((o->output = short_value(argc, argv, &i)) == NULL)
                return options_usage("a file name is missing after", "-o", arena);
        } else if (strncmp(arg, "-D", 2) == 0) {
            const char *def = short_value(argc, argv, &i);
            if (def == NULL || strchr(def, '=') == NULL) return options_usage("expected NAME=VALUE after", "-D", arena);
            vec_push(arena, o->defs, def);
        } else if (strcmp(arg, "--in") == 0) {
            if (++i == argc || strchr(argv[i], '=') == NULL)
                return options_usage("expected NAME=FILE.npy after", arg, arena);
            vec_push(arena, o->in, argv[i]);
        } else if (arg[0] == '-' && arg[1] != '\0') {
            if (!table_option(o, argc, argv, &i))
                return options_usage("unknown option, or one with a missing or unwanted value,", arg, arena);
        } else if ((strcmp(arg, "check") == 0 || strcmp(arg, "run") == 0 || strcmp(arg, "diff") == 0) &&
                   o->input == NULL && strcmp(o->command, "compile") == 0) {
            o->command = arg;
        } else if (o->input != NULL && strcmp(o->command, "run") == 0 && o->run.entry == NULL) {
            o->run.entry = arg;
        } else if (o->input != NULL && strcmp(o->command, "diff") == 0 && o->other == NULL) {
            o->other = arg;
        } else if (o->input != NULL) {
            return options_usage("one input at a time; a second one is", arg, arena);
        } else {
            o->input = arg;
        }
    }
    return 0;
}

/* ---- amounts ----------------------------------------------------------------------------------------------------- */

int64_t options_bytes(const char *text) {
    static const struct {
        const char *name;
        double bytes;
    } unit[] = {{"", 1},      {"B", 1},      {"KB", 1e3},          {"MB", 1e6},     {"GB", 1e9},
                {"TB", 1e12}, {"KiB", 1024}, {"MiB", 1024 * 1024}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
    char *end;
    if (text[0] < '0' || text[0] > '9') return -1;
    double n = strtod(text, &end);
    for (size_t i = 0; i < sizeof unit / sizeof *unit; i++)
        if (strcmp(end, unit[i].name) == 0) return n * unit[i].bytes < 0x1p62 ? (int64_t)(n * unit[i].bytes) : -1;
    return -1;
}
