/* parse_lex.c: the tokens of the text form.
 *
 * Words, strings, numbers, %values and single punctuation characters, over a text that is not trusted: it may hold any
 * bytes, and every fault is reported at its place. Signs are punctuation: "-1" is two tokens. Cost: linear. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "parse.h"
#include "support/intern.h"
#include "support/str.h"

enum { TOKEN_LIMIT = 4096 };

static _Noreturn void fail(Parser *p, Loc loc, const char *fmt, va_list args) {
    char text[512];
    vsnprintf(text, sizeof text, fmt, args);
    diag_error(loc, "%s", text);
    longjmp(p->fail, 1);
}

void parse_fail(Parser *p, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fail(p, p->loc, fmt, args);
}

void parse_fail_at(Parser *p, Loc loc, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fail(p, loc, fmt, args);
}

const char *token_text(const Parser *p) {
    return p->tok == TOK_end ? "end of text" : p->word;
}

/* ---- characters ---------------------------------------------------------------------------------------------------
 */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_word_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_';
}

static char char_at(const Parser *p, uint32_t pos) {
    return pos < p->bytes ? p->text[pos] : '\0';
}

static void skip_space(Parser *p) {
    while (p->pos < p->bytes) {
        char c = p->text[p->pos];
        if (c == ' ' || c == '\n' || c == '\t' || c == '\r')
            p->pos++;
        else if (c == '/' && char_at(p, p->pos + 1) == '/')
            while (p->pos < p->bytes && p->text[p->pos] != '\n') p->pos++;
        else
            break;
    }
}

/* Three octal digits, or a character that stands for itself: what str_add_quoted writes, and what people write. */
static char lex_escape(Parser *p) {
    char a = char_at(p, p->pos + 1), b = char_at(p, p->pos + 2), c = char_at(p, p->pos + 3);
    if (a == '"' || a == '\\' || a == '?') {
        p->pos++;
        return a;
    }
    bool octal = a >= '0' && a <= '3' && b >= '0' && b <= '7' && c >= '0' && c <= '7';
    if (!octal) parse_fail(p, "unknown escape in a string");
    p->pos += 3;
    return (char)((a - '0') * 64 + (b - '0') * 8 + (c - '0'));
}

static void lex_string(Parser *p) {
    Str s = str_new(p->arena);
    str_add(&s, "");
    for (p->pos++;; p->pos++) {
        if (p->pos >= p->bytes || p->text[p->pos] == '\n' || s.n > TOKEN_LIMIT) parse_fail(p, "a string is not closed");
        char c = p->text[p->pos];
        if (c == '"') break;
        if (c == '\\') c = lex_escape(p);
        if (c == '\0') parse_fail(p, "a string holds a NUL");
        str_add_n(&s, &c, 1);
    }
    p->pos++;
    p->word = intern_n(s.at, s.n);
}

/* Digits, a fraction, an exponent with its sign; whether it is a number is found out when its value is taken. */
static void lex_number(Parser *p) {
    while (is_word_char(char_at(p, p->pos)) || char_at(p, p->pos) == '.' ||
           ((char_at(p, p->pos) == '-' || char_at(p, p->pos) == '+') && p->text[p->pos - 1] == 'e'))
        p->pos++;
}

void token_next(Parser *p) {
    skip_space(p);
    uint32_t begin = p->pos;
    p->loc = (Loc){p->file, begin, begin + 1};
    p->word = "";
    p->tok = TOK_end;
    if (begin >= p->bytes) return;
    char c = p->text[begin];
    if (c == '"') {
        lex_string(p);
        p->tok = TOK_string;
    } else if (c == '%' || is_word_char(c)) {
        p->tok = c == '%' ? TOK_value : is_digit(c) ? TOK_number : TOK_word;
        uint32_t start = p->pos += c == '%';
        while (is_word_char(char_at(p, p->pos))) p->pos++;
        if (p->tok == TOK_number) lex_number(p);
        if (p->pos - start > TOKEN_LIMIT) parse_fail(p, "a name is longer than %d bytes", TOKEN_LIMIT);
        if (p->pos == start) parse_fail(p, "a value has a name: expected one after '%%'");
        p->word = intern_n(p->text + start, p->pos - start);
    } else {
        p->tok = TOK_punct;
        p->word = intern_n(p->text + p->pos++, 1);
    }
    p->loc.end = p->pos;
}

/* ---- taking tokens ------------------------------------------------------------------------------------------------
 */

bool token_is(const Parser *p, char c) {
    return p->tok == TOK_punct && p->word[0] == c;
}
bool token_is_word(const Parser *p, const char *w) {
    return p->tok == TOK_word && strcmp(p->word, w) == 0;
}

bool token_accept(Parser *p, char c) {
    if (!token_is(p, c)) return false;
    token_next(p);
    return true;
}

bool token_accept_word(Parser *p, const char *w) {
    if (!token_is_word(p, w)) return false;
    token_next(p);
    return true;
}

void token_expect(Parser *p, char c) {
    if (!token_accept(p, c)) parse_fail(p, "expected '%c' before '%.40s'", c, token_text(p));
}

const char *token_take(Parser *p, Tok tok, const char *what) {
    if (p->tok != tok) parse_fail(p, "expected %s before '%.40s'", what, token_text(p));
    const char *w = p->word;
    token_next(p);
    return w;
}

int64_t token_int(Parser *p) {
    bool minus = token_accept(p, '-');
    Loc loc = p->loc;
    const char *w = token_take(p, TOK_number, "an integer");
    char *end;
    errno = 0;
    unsigned long long x = strtoull(w, &end, 10), most = (unsigned long long)INT64_MAX + minus;
    if (*end != '\0' || errno != 0 || x > most) parse_fail_at(p, loc, "'%.40s' is not an integer in range", w);
    return minus ? (int64_t)(0 - x) : (int64_t)x;
}

double token_num(Parser *p) {
    bool minus = token_accept(p, '-');
    double x;
    if (token_accept_word(p, "inf")) {
        x = (double)INFINITY;
    } else if (token_accept_word(p, "nan")) {
        x = (double)NAN;
    } else {
        Loc loc = p->loc;
        const char *w = token_take(p, TOK_number, "a number");
        char *end;
        x = strtod(w, &end);
        if (*end != '\0') parse_fail_at(p, loc, "'%.40s' is not a number", w);
    }
    return minus ? -x : x;
}
