/* diag.c: registered sources, locations and messages.
 *
 * Sources are kept by number with their text; line and column are found by scanning from the start when a message needs
 * them, which no correct program pays for. Messages go to stderr in the form of gcc, with the source line and an
 * underline; colour only on a terminal and never with NO_COLOR set. Printing stops after DIAG_LIMIT errors, counting
 * does not.
 * Everything here is global: a process compiles one program. */
#include "diag.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arena.h"
#include "vec.h"

typedef struct Source {
    const char *path, *text;
    size_t bytes;
} Source;

typedef struct Warning {
    Loc loc;
    const char *text;
} Warning;

static struct {
    Arena *arena;
    VEC(Source) sources; /* file numbers are positions + 1 */
    VEC(Warning) warnings;
    int errors;
    bool muted; /* the last message was beyond the limit, or said before: so are its notes */
    const char *phase;
    void (*on_bug)(void);
} diag;

enum { LONGEST_LINE = 200, WHERE_BUFFERS = 8, WHERE_BYTES = 512 };

uint32_t diag_add_file(const char *path, const char *text, size_t bytes) {
    if (diag.arena == NULL) diag.arena = arena_new();
    Source s = {arena_strdup(diag.arena, path), text, bytes};
    vec_push(diag.arena, diag.sources, s);
    return (uint32_t)diag.sources.n;
}

static const Source *source_of(uint32_t file) {
    return file == 0 || file > (uint32_t)diag.sources.n ? NULL : &diag.sources.at[file - 1];
}

const char *diag_file_path(uint32_t file) {
    const Source *s = source_of(file);
    return s == NULL ? "<unknown>" : s->path;
}

bool diag_line_col(Loc loc, const char **path, int *line, int *col) {
    const Source *s = source_of(loc.file);
    if (s == NULL) return false;
    size_t at = loc.begin < s->bytes ? loc.begin : s->bytes, start = 0;
    *path = s->path;
    *line = 1;
    for (size_t i = 0; i < at; i++)
        if (s->text[i] == '\n') {
            ++*line;
            start = i + 1;
        }
    *col = (int)(at - start) + 1;
    return true;
}

const char *diag_where(Loc loc) {
    static char ring[WHERE_BUFFERS][WHERE_BYTES];
    static int next;
    const char *path;
    int line, col;
    if (!diag_line_col(loc, &path, &line, &col)) return "<no location>";
    char *text = ring[next++ % WHERE_BUFFERS];
    snprintf(text, WHERE_BYTES, "%s:%d:%d", path, line, col);
    return text;
}

Loc loc_join(Loc a, Loc b) {
    if (a.file == 0) return b;
    if (b.file != a.file) return a;
    return (Loc){a.file, a.begin < b.begin ? a.begin : b.begin, a.end > b.end ? a.end : b.end};
}

static const char *colour(FILE *out, const char *code) {
    static int on = -1;
    if (on < 0) on = isatty(STDERR_FILENO) && getenv("NO_COLOR") == NULL;
    return on && out == stderr ? code : "";
}

/* The source line of the location and an underline. Tabs are copied below themselves, and bytes that continue a UTF-8
 * character take no column, so that the marks stand under what they mark. */
static void print_source(FILE *out, Loc loc) {
    const Source *s = source_of(loc.file);
    size_t begin = loc.begin < s->bytes ? loc.begin : s->bytes, from = begin, to = begin;
    while (from > 0 && s->text[from - 1] != '\n') from--;
    while (to < s->bytes && s->text[to] != '\n') to++;
    if (begin - from > LONGEST_LINE) from = begin - LONGEST_LINE / 2;
    if (to - from > LONGEST_LINE) to = from + LONGEST_LINE;
    fputs("    ", out);
    for (size_t i = from; i < to; i++)
        fputc((unsigned char)s->text[i] < ' ' && s->text[i] != '\t' ? ' ' : s->text[i], out);
    fprintf(out, "\n    ");
    for (size_t i = from; i < begin; i++)
        if (((unsigned char)s->text[i] & 0xc0) != 0x80) fputc(s->text[i] == '\t' ? '\t' : ' ', out);
    fprintf(out, "%s^", colour(out, "\033[1;32m"));
    for (size_t i = begin + 1; i < to && i < loc.end; i++)
        if (((unsigned char)s->text[i] & 0xc0) != 0x80) fputc('~', out);
    fprintf(out, "%s\n", colour(out, "\033[0m"));
}

static void print_message(FILE *out, Loc loc, const char *kind, const char *tint, const char *fmt, va_list args) {
    bool has = source_of(loc.file) != NULL;
    fprintf(out, "%s%s: %s%s%s: ", colour(out, "\033[1m"), has ? diag_where(loc) : "moecc", colour(out, tint), kind,
            colour(out, "\033[0m"));
    vfprintf(out, fmt, args);
    fputc('\n', out);
    if (has) print_source(out, loc);
}

/* Whether it was given before; if not it is remembered. */
static bool warned(Loc loc, const char *fmt, va_list args) {
    if (diag.arena == NULL) diag.arena = arena_new();
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    char *text = arena_alloc(diag.arena, (size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, fmt, args);
    for (int i = 0; i < diag.warnings.n; i++) {
        const Warning *w = &diag.warnings.at[i];
        if (w->loc.file == loc.file && w->loc.begin == loc.begin && strcmp(w->text, text) == 0) return true;
    }
    vec_push(diag.arena, diag.warnings, ((Warning){loc, text}));
    return false;
}

void diag_error(Loc loc, const char *fmt, ...) {
    diag.errors++;
    diag.muted = diag.errors > DIAG_LIMIT;
    if (diag.errors == DIAG_LIMIT + 1) fprintf(stderr, "moecc: more errors are not shown\n");
    if (diag.muted) return;
    va_list args;
    va_start(args, fmt);
    print_message(stderr, loc, "error", "\033[31m", fmt, args);
    va_end(args);
}

void diag_warn(Loc loc, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    diag.muted = diag.errors > DIAG_LIMIT || diag.warnings.n == DIAG_LIMIT || warned(loc, fmt, args);
    va_end(args);
    if (diag.muted) return;
    va_start(args, fmt);
    print_message(stderr, loc, "warning", "\033[35m", fmt, args);
    va_end(args);
    if (diag.warnings.n == DIAG_LIMIT) fprintf(stderr, "moecc: more warnings are not shown\n");
}

void diag_note(Loc loc, const char *fmt, ...) {
    if (diag.muted) return;
    va_list args;
    va_start(args, fmt);
    print_message(stderr, loc, "note", "\033[36m", fmt, args);
    va_end(args);
}

void diag_show(FILE *out, Loc loc, const char *kind, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    print_message(out, loc, kind, "", fmt, args);
    va_end(args);
}

int diag_errors(void) {
    return diag.errors;
}

void diag_reset(void) {
    arena_free(diag.arena);
    diag.arena = NULL;
    diag.sources.at = NULL;
    diag.sources.n = diag.sources.cap = 0;
    diag.warnings.at = NULL;
    diag.warnings.n = diag.warnings.cap = 0;
    diag.errors = 0;
    diag.muted = false;
    diag.phase = NULL;
}

void diag_set_phase(const char *name) {
    diag.phase = name;
}

void diag_on_bug(void (*hook)(void)) {
    diag.on_bug = hook;
}

_Noreturn void diag_bug(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "moecc: internal error%s%s: ", diag.phase == NULL ? "" : " in ",
            diag.phase == NULL ? "" : diag.phase);
    vfprintf(stderr, fmt, args);
    fputs("\nmoecc: this is a bug of the compiler, not of your program; please report it with the source\n", stderr);
    va_end(args);
    void (*hook)(void) = diag.on_bug;
    diag.on_bug = NULL; /* a bug inside the hook must not come back here */
    if (hook != NULL) hook();
    exit(EXIT_BUG);
}
