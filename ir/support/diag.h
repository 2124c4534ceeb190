/* diag.h: source files, locations and diagnostics.
 *
 * A location is a file and a byte range; line and column are computed only when something is printed (jq's idea).
 * User errors are collected: printing continues to a limit of 20, and the driver stops after the phase that reported
 * one. `diag_bug` is for what cannot be the user's fault; it names the running pass and exits with 70.
 * State is global: a process compiles one program (a fuzz target calls diag_reset between inputs). */
#ifndef MOECC_DIAG_H
#define MOECC_DIAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct Loc {
    uint32_t file;       /* 0: no location */
    uint32_t begin, end; /* byte range, end exclusive */
} Loc;

enum { EXIT_USER_ERROR = 1, EXIT_USAGE = 2, EXIT_BUG = 70, DIAG_LIMIT = 20 };

/* Registers a source; `text` must outlive the process's diagnostics. Returns its number, from 1. */
uint32_t diag_add_file(const char *path, const char *text, size_t bytes);
const char *diag_file_path(uint32_t file);
/* 1-based line and column of the start of `loc`; false without location. */
bool diag_line_col(Loc loc, const char **path, int *line, int *col);
/* "gshard.moe:12:5", or "<no location>", in static storage of a few rotating buffers. */
const char *diag_where(Loc loc);
/* The smallest range that holds both. */
Loc loc_join(Loc a, Loc b);

/* file:line:col: error: …, the source line, an underline. Notes belong to the error or warning before them. A warning
 * is given once: what is lowered twice (an entry and its gradient, a layer in a loop) says it once. */
void diag_error(Loc loc, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void diag_warn(Loc loc, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void diag_note(Loc loc, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same form as a product, not a complaint: to `out`, without colours, counted nowhere. */
void diag_show(FILE *out, Loc loc, const char *kind, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
int diag_errors(void);
void diag_reset(void);

/* What runs now, for the message of a bug ("pass partition"). */
void diag_set_phase(const char *name);
/* Called by diag_bug before it exits (the driver saves the last IR in it). */
void diag_on_bug(void (*hook)(void));
_Noreturn void diag_bug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
