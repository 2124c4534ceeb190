/* parse.h: private to the reader of text forms: its state, and what the lexer offers the grammar. */
#ifndef MOECC_PARSE_H
#define MOECC_PARSE_H

#include <setjmp.h>

#include "ir.h"

typedef enum Tok { TOK_end, TOK_word, TOK_string, TOK_number, TOK_value, TOK_punct } Tok;

typedef struct Scope Scope; /* the values that a block sees, by name */

typedef struct Parser {
    Arena *arena;
    Module *m;
    const char *text;
    uint32_t file, pos, bytes;
    Tok tok;
    Loc loc; /* of the current token; where a fault is reported */
    const char
        *word; /* interned: a word, a string's bytes, a value's name, a number's text, one punctuation character */
    Scope *scope;
    int regions;
    VEC(uint32_t) files; /* the text's file numbers, from 1 -> registered ones */
    jmp_buf fail;
} Parser;

/* Reports at p->loc and ends the parse. */
_Noreturn void parse_fail(Parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void parse_fail_at(Parser *p, Loc loc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The current token, for messages. */
const char *token_text(const Parser *p);

void token_next(Parser *p);
bool token_is(const Parser *p, char c);
bool token_is_word(const Parser *p, const char *w);
/* Whether the token is there; then it is passed. */
bool token_accept(Parser *p, char c);
bool token_accept_word(Parser *p, const char *w);
void token_expect(Parser *p, char c);
/* The current token, which must be of that kind; `what` describes it in the message. */
const char *token_take(Parser *p, Tok tok, const char *what);
int64_t token_int(Parser *p);
double token_num(Parser *p);

#endif
