/* generate.c: text from a prompt.
 *
 * The program has two functions with arguments tokens: i32[B, S] and pos: i32[B], and the result f32[B, S, V]: prefill
 * (S a chunk) and decode (S = 1). The prompt goes through prefill chunk by chunk, the last one padded; a padded place
 * writes cache entries behind the prompt, which later tokens overwrite before they can be seen. Then decode, one token
 * at a time. Row 0 of a batch is printed; all rows are the same. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host.h"
#include "ranks.h"

typedef struct Gen {
    Team *team;
    const MoeFunc *decode, *prefill; /* prefill NULL: decode does it */
    int vocabulary;
    float *logits; /* of the last token */
} Gen;

static bool gen_func(const MoeProgram *p, const char *name, const MoeFunc **f, Error *e) {
    *f = func_find(p, name, false);
    if (!*f) return error_set(e, "the program has no function '%s'", name);
    const MoeTensor *tokens = tensor_find((*f)->nargs, (*f)->args, "tokens"),
                    *pos = tensor_find((*f)->nargs, (*f)->args, "pos");
    bool fits = (*f)->nargs == 2 && tokens && pos && tokens->dtype == MOE_i32 && pos->dtype == MOE_i32 &&
                tokens->rank == 2 && pos->rank == 1 && pos->size[0] == tokens->size[0] && (*f)->nresults > 0 &&
                (*f)->results[0].rank == 3 && (*f)->results[0].size[0] == tokens->size[0] &&
                (*f)->results[0].size[1] == tokens->size[1];
    if (!fits)
        return error_set(e, "'%s' cannot generate: it must take tokens: i32[B, S], pos: i32[B] and return f32[B, S, V]",
                         name);
    return true;
}

/* Runs f on n tokens (at most its S) that begin at `pos`; leaves the logits of the last one. */
static bool gen_feed(Gen *g, const MoeFunc *f, const unsigned char *at, int64_t n, int64_t pos, Error *e) {
    const MoeTensor *tokens = tensor_find(f->nargs, f->args, "tokens");
    int64_t rows = tokens->size[0], width = tokens->size[1];
    int32_t *t = xcalloc((size_t)(rows * width), sizeof *t), *p = xcalloc((size_t)rows, sizeof *p);
    for (int64_t r = 0; r < rows; r++) {
        p[r] = (int32_t)pos;
        for (int64_t i = 0; i < n; i++) t[r * width + i] = at[i];
    }
    const void *args[2];
    for (int i = 0; i < 2; i++) args[i] = &f->args[i] == tokens ? t : p;
    Call call = {f, args, 0, 0, 1};
    bool ok = call_run(g->team, &call, e);
    if (ok) {
        float *all = floats_of(&f->results[0], call_result(g->team, f, 0));
        memcpy(g->logits, all + (n - 1) * g->vocabulary, (size_t)g->vocabulary * sizeof *all);
        free(all);
        ok = ranks_ok(e);
    }
    free(t);
    free(p);
    return ok;
}

static bool gen_prompt(Gen *g, const unsigned char *prompt, int64_t n, Error *e) {
    const MoeFunc *f = g->prefill ? g->prefill : g->decode;
    int64_t chunk = tensor_find(f->nargs, f->args, "tokens")->size[1];
    for (int64_t at = 0; at < n; at += chunk)
        if (!gen_feed(g, f, prompt + at, n - at < chunk ? n - at : chunk, at, e)) return false;
    return true;
}

/* A model may say anything; a terminal is not told control sequences. */
static void put_byte(int byte, bool tty) {
    bool plain = byte >= 32 || byte == '\n' || byte == '\t';
    putchar(tty && (!plain || byte == 127) ? '.' : byte);
    fflush(stdout);
}

static bool gen_text(const MoeProgram *p, Gen *g, const Options *o, Error *e) {
    const char *prompt = o->prompt && *o->prompt ? o->prompt : "\n";
    int64_t n = (int64_t)strlen(prompt);
    bool tty = isatty(STDOUT_FILENO);
    int64_t room = p->generate_positions - n, max_tokens = o->max_tokens < room ? o->max_tokens : room;
    if (room < 0)
        return error_set(e, "the prompt has %lld tokens, and the program keeps %lld positions", (long long)n,
                         (long long)p->generate_positions);
    if (!gen_prompt(g, (const unsigned char *)prompt, n, e)) return false;
    for (int64_t i = 0; i < n; i++) put_byte((unsigned char)prompt[i], tty);
    int usable = g->vocabulary < 256 ? g->vocabulary : 256;
    for (int64_t i = 0; i < max_tokens && !ranks_any(signals_seen()); i++) {
        unsigned char next =
            (unsigned char)sample_next(g->logits, usable, o->temperature, o->top_k, (uint32_t)o->seed, n + i);
        put_byte(next, tty);
        if (i + 1 < max_tokens && !gen_feed(g, g->decode, &next, 1, n + i, e)) return false;
    }
    putchar('\n');
    if (max_tokens < o->max_tokens)
        note("stopped at %lld positions, which is what the program keeps\n", (long long)p->generate_positions);
    return true;
}

int command_generate(const MoeProgram *p, const Options *o) {
    Error e = {0};
    Gen g = {0};
    signals_watch();
    bool ok = (p->generate_decode || error_set(&e, "the program has no `generate with` declaration")) &&
              (o->weights || error_set(&e, "generate needs --weights PATH")) &&
              gen_func(p, p->generate_decode, &g.decode, &e) &&
              (!p->generate_prefill || gen_func(p, p->generate_prefill, &g.prefill, &e)) &&
              (g.team = command_team(p, o, &e));
    if (ok) {
        g.vocabulary = (int)g.decode->results[0].size[2];
        g.logits = xcalloc((size_t)g.vocabulary, sizeof *g.logits);
        ok = gen_text(p, &g, o, &e);
    }
    free(g.logits);
    team_free(g.team);
    if (!ok) return command_error(&e);
    return signals_seen() ? EXIT_stopped : 0;
}
