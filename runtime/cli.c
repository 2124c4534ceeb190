/* cli.c: the command line of every compiled program, from one table of commands and one of options; help comes from the
 * same rows. Exit codes: 0; 1 an error in the user's input; 2 usage; 75 stopped by a signal. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "ranks.h"

/* ---- tables ------------------------------------------------------------------------------------------------- */

enum { INFO = 1, TRAIN = 2, EVAL = 4, GENERATE = 8, RUN = 16, BENCH = 32, ALL = 63 };

static const struct Command {
    const char *name;
    unsigned bit;
    int (*run)(const MoeProgram *p, const Options *o);
    const char *doc;
} commands[] = {
    {"info", INFO, command_info, "mesh, parameters, functions"},
    {"train", TRAIN, command_train, "optimizer steps on a text"},
    {"eval", EVAL, command_eval, "mean loss over the held-out end of a text"},
    {"generate", GENERATE, command_generate, "continue a prompt"},
    {"run", RUN, command_run, "call one function: run ENTRY"},
    {"bench", BENCH, command_bench, "time calls of one function on random arguments: bench ENTRY"},
};
enum { NCOMMANDS = sizeof commands / sizeof *commands };

typedef enum OptionKind { OPTION_word, OPTION_int, OPTION_number, OPTION_time, OPTION_list, OPTION_flag } OptionKind;

static const struct Option {
    const char *name, *value;
    OptionKind kind;
    size_t at; /* in Options */
    unsigned commands;
    double low, high;
    const char *doc;
} options[] = {
#define AT(field) offsetof(Options, field)
    {"--data", "FILE", OPTION_word, AT(data), TRAIN | EVAL, 0, 0,
     "text; its bytes are the tokens, its last 5 % is held out"},
    {"--steps", "N", OPTION_int, AT(steps), TRAIN | RUN, 1, INT32_MAX, "optimizer steps, also for schedules (1000)"},
    {"--time", "60s", OPTION_time, AT(seconds), TRAIN, 0, 0,
     "stop after this time (s, m, h), if --steps does not come first"},
    {"--stop-at", "N", OPTION_int, AT(stop_at), TRAIN, 1, INT32_MAX, "stop after step N; schedules keep --steps"},
    {"--save", "DIR", OPTION_word, AT(save), TRAIN | RUN, 0, 0, "checkpoint at the end, and when stopped by a signal"},
    {"--save-every", "N", OPTION_int, AT(save_every), TRAIN, 1, INT32_MAX, "checkpoint every N steps too"},
    {"--resume", "DIR", OPTION_word, AT(resume), TRAIN, 0, 0, "continue from a checkpoint, on any number of devices"},
    {"--weights", "PATH", OPTION_word, AT(weights), TRAIN | EVAL | GENERATE | RUN | BENCH, 0, 0,
     "a safetensors file or a checkpoint"},
    {"--weights-of", "NAME=PATH", OPTION_list, AT(weights_of), TRAIN | EVAL | GENERATE | RUN | BENCH, 0, 0,
     "the same, of what the source imports as NAME; once for each"},
    {"--ema", "", OPTION_flag, AT(ema), EVAL | GENERATE | RUN, 0, 0, "with the running means of the parameters"},
    {"--prompt", "TEXT", OPTION_word, AT(prompt), GENERATE, 0, 0, "what to continue"},
    {"--max-tokens", "N", OPTION_int, AT(max_tokens), GENERATE, 1, INT32_MAX, "tokens to generate (200)"},
    {"--temperature", "X", OPTION_number, AT(temperature), GENERATE, 0, 100, "0: always the likeliest token (1)"},
    {"--top-k", "N", OPTION_int, AT(top_k), GENERATE, 0, INT32_MAX, "draw among the N likeliest, 0: all (0)"},
    {"--in", "NAME=F.npy", OPTION_list, AT(in), RUN, 0, 0, "an argument; once for each"},
    {"--out", "DIR", OPTION_word, AT(out), RUN, 0, 0, "where results go, as NAME.npy"},
    {"--train", "", OPTION_flag, AT(train), RUN | BENCH, 0, 0,
     "the training function of that name (run: --steps times)"},
    {"--repeat", "N", OPTION_int, AT(repeat), BENCH, 1, 1000000, "calls to time, after two to warm up (10)"},
    {"--seed", "N", OPTION_int, AT(seed), TRAIN | GENERATE | RUN | BENCH, 0, UINT32_MAX,
     "of initial values, data order, draws (0); a resumed run keeps its own"},
    {"--devices", "N", OPTION_int, AT(devices), ALL, 1, INT32_MAX,
     "of all processes; must be what the program was compiled for"},
    {"--workers", "N", OPTION_int, AT(workers), ALL & ~(unsigned)INFO, 1, 1024, "threads a device (cores / devices)"},
#undef AT
};
enum { NOPTIONS = sizeof options / sizeof *options };

/* ---- help and suggestions ----------------------------------------------------------------------------------- */

static void help_options(unsigned mask) {
    for (int i = 0; i < NOPTIONS; i++)
        if (options[i].commands & mask) {
            char left[64];
            snprintf(left, sizeof left, "%s%s%s", options[i].name, *options[i].value ? "=" : "", options[i].value);
            printf("  %-22s %s\n", left, options[i].doc);
        }
}

static void help(const char *self, const struct Command *c) {
    if (c) {
        printf("usage: %s %s%s [options]\n%s\n", self, c->name, c->bit & (RUN | BENCH) ? " ENTRY" : "", c->doc);
        help_options(c->bit);
        return;
    }
    printf("usage: %s COMMAND [options]\n", self);
    for (int i = 0; i < NCOMMANDS; i++) printf("  %-22s %s\n", commands[i].name, commands[i].doc);
    printf("options:\n");
    help_options(ALL);
    printf(
        "exit: 0; 1 error in the input; 2 usage; 75 stopped by SIGINT or SIGTERM after the step under way\n"
        "(a checkpoint is written if --save was given)\n");
}

/* Edit distance, bounded by the buffer: names are short. */
static int distance(const char *a, const char *b) {
    int row[40], n = (int)strlen(b);
    if (n >= 39) return 99;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int corner = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int same = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            int other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = same < other ? same : other;
        }
    }
    return row[n];
}

static int usage(const char *self, const char *what, const char *word, const char *near) {
    note("error: %s '%.80s'", what, word);
    if (near) note("; did you mean '%s'?", near);
    note("\nSee %s --help\n", self);
    return EXIT_usage;
}

static const char *nearest_option(const char *word, unsigned mask) {
    const char *best = NULL;
    int least = 4;
    for (int i = 0; i < NOPTIONS; i++) {
        int d = options[i].commands & mask ? distance(word, options[i].name) : 99;
        if (d < least) least = d, best = options[i].name;
    }
    return best;
}

static const char *nearest_command(const char *word) {
    const char *best = NULL;
    int least = 4;
    for (int i = 0; i < NCOMMANDS; i++) {
        int d = distance(word, commands[i].name);
        if (d < least) least = d, best = commands[i].name;
    }
    return best;
}

/* ---- parsing ------------------------------------------------------------------------------------------------ */

static bool number_read(const char *text, bool whole, const char *units, double *out) {
    char *end;
    errno = 0;
    double x = strtod(text, &end);
    if (end == text || errno || !isfinite(x) || strchr("xXnNiI", text[0])) return false;
    if (units && *end) {
        x *= *end == 's' ? 1 : *end == 'm' ? 60 : *end == 'h' ? 3600 : NAN;
        end++;
    }
    *out = x;
    return !*end && isfinite(x) && (!whole || (x == floor(x) && !strpbrk(text, ".eExX")));
}

static bool option_store(const struct Option *d, const char *text, Options *o) {
    char *at = (char *)o + d->at;
    int *n;
    double x;
    switch (d->kind) {
        case OPTION_word:
            *(const char **)(void *)at = text;
            return true;
        case OPTION_list:
            n = d->at == offsetof(Options, in) ? &o->nin : &o->nweights_of;
            if (*n == MAX_INPUTS) return false;
            ((const char **)(void *)at)[(*n)++] = text;
            return true;
        case OPTION_int:
            if (!number_read(text, true, NULL, &x) || x < d->low || x > d->high) return false;
            *(int64_t *)(void *)at = (int64_t)x;
            return true;
        case OPTION_number:
            if (!number_read(text, false, NULL, &x) || x < d->low || x > d->high) return false;
            *(double *)(void *)at = x;
            return true;
        case OPTION_flag:
            *(bool *)(void *)at = true;
            return true;
        case OPTION_time:
            if (!number_read(text, false, "smh", &x) || x <= 0) return false;
            *(double *)(void *)at = x;
            return true;
    }
    return false;
}

static const struct Option *option_find(const char *word, size_t n, unsigned mask) {
    for (int i = 0; i < NOPTIONS; i++)
        if ((options[i].commands & mask) && strlen(options[i].name) == n && !strncmp(options[i].name, word, n))
            return &options[i];
    return NULL;
}

/* One argument, or two; returns how many were taken, 0 after a message. */
static int argument_parse(const char *self, const struct Command *c, int argc, char **argv, Options *o) {
    const char *word = argv[0], *equal = strchr(word, '=');
    if (word[0] != '-') {
        if (!o->entry && c->bit != INFO && c->bit != GENERATE) return o->entry = word, 1;
        return usage(self, "unexpected argument", word, NULL), 0;
    }
    size_t n = equal ? (size_t)(equal - word) : strlen(word);
    const struct Option *d = option_find(word, n, c->bit);
    if (!d) {
        char *name = xformat("%.*s", (int)n, word);
        usage(self, "unknown option", name, nearest_option(name, c->bit));
        free(name);
        return 0;
    }
    bool flag = d->kind == OPTION_flag;
    if (flag && equal) return usage(self, "no value may follow", d->name, NULL), 0;
    const char *text = flag ? "" : equal ? equal + 1 : argc > 1 ? argv[1] : NULL;
    if (!text) return usage(self, "a value must follow", d->name, NULL), 0;
    if (!option_store(d, text, o)) {
        note("error: %s: '%.80s' is not %s\nSee %s %s --help\n", d->name, text,
             d->kind == OPTION_int    ? "an integer in range"
             : d->kind == OPTION_time ? "a time like 60s, 5m, 2h"
                                      : "a number in range",
             self, c->name);
        return 0;
    }
    return equal || flag ? 1 : 2;
}

static bool devices_check(const MoeProgram *p, const Options *o, Error *e) {
    if (!o->devices || o->devices == p->devices) return true;
    char mesh[400] = "";
    for (int i = 0, n = 0; i < p->naxes && n < 300; i++) {
        bool only = p->naxes == 1;
        n += snprintf(mesh + n, sizeof mesh - (size_t)n, "%s%.60s=%lld", i ? "," : "", p->axis_name[i],
                      only ? (long long)o->devices : (long long)p->axis_size[i]);
    }
    if (p->naxes == 1)
        return error_set(e, "compiled for %d devices; for %lld, compile with --mesh %s", p->devices,
                         (long long)o->devices, mesh);
    return error_set(e,
                     "compiled for %d devices (mesh %s); for %lld, compile with a --mesh whose sizes multiply to that",
                     p->devices, mesh, (long long)o->devices);
}

/* What was printed must have arrived: a full disk is an error. */
static int printed(int status) {
    Error e = {0};
    if (fflush(stdout) == 0 && !ferror(stdout)) return status;
    error_set(&e, "standard output: %s", strerror(errno));
    return status == 0 ? command_error(&e) : status;
}

int cli_main(const MoeProgram *p, int argc, char **argv) {
    const char *self = argv[0];
    Options o = {.temperature = 1, .max_tokens = 200};
    Error e = {0};
    if (p->abi != MOE_ABI)
        return error_set(&e, "compiled for runtime ABI %d, linked with %d", p->abi, MOE_ABI), command_error(&e);
    if (argc < 2) return help(self, NULL), EXIT_usage;
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
        return help(self, NULL), printed(0);
    const struct Command *c = NULL;
    for (int i = 0; i < NCOMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name)) c = &commands[i];
    if (!c) return usage(self, "unknown command", argv[1], nearest_command(argv[1]));
    for (int i = 2; i < argc;) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return help(self, c), printed(0);
        int taken = argument_parse(self, c, argc - i, argv + i, &o);
        if (!taken) return EXIT_usage;
        i += taken;
    }
    if (!devices_check(p, &o, &e)) return command_error(&e);
    return printed(c->run(p, &o));
}
