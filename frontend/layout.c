/* layout.c: which newlines end a statement.
 *
 * A newline counts unless it is inside ( ) or [ ], after a token that asks for more (an operator, a comma, an arrow),
 * at the start of a block or a line of its own, or before `else`, `->`, `{`, `}` or (outside functions) `manual`.
 * So the grammar never meets a newline that means nothing. The bracket stack needed for that also serves three more
 * ends: it bounds nesting; a bracket that is never closed is reported where it was opened, as soon as a word appears
 * that can only begin a statement; and braces missing at the end of a function are supplied, so that one error does not
 * become many. */
#include "parse.tab.h"
#include "syntax.h"

static bool opens(int kind) {
    return kind == '(' || kind == '[' || kind == '{';
}

static bool in_parens(const Parser *p) {
    return p->open.n > 0 && p->open.at[p->open.n - 1].kind != '{';
}

/* After these a line goes on. */
static bool wants_more(int kind) {
    static const int kinds[] = {'+', '-', '*', '/', '%', '<', '>', '=', ',', ':', '@',   '{',
                                ';', NL,  POW, LE,  GE,  EQ,  NE,  AND, OR,  NOT, ARROW, DOTS};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i] == kind) return true;
    return false;
}

/* A line that begins with these belongs to the one before. */
static bool continues(const Parser *p, int kind) {
    bool inside = p->open.n > 0;
    return kind == ELSE || kind == ARROW || kind == '{' || kind == (inside ? '}' : MANUAL);
}

static bool begins_item(int kind) {
    return kind == FN || kind == ENTRY;
}

static bool begins_statement(int kind) {
    return begins_item(kind) || kind == PARAM || kind == STATE || kind == DIM || kind == CONST || kind == RETURN ||
           kind == FOR;
}

static bool closes(int open, int close) {
    return (open == '(' && close == ')') || (open == '[' && close == ']') || (open == '{' && close == '}');
}

/* Takes the bracket that `kind` closes off the stack, and those inside it that were never closed. ) and ] do not reach
 * beyond a brace; one that closes nothing is left to the grammar's message. */
static void close_bracket(Parser *p, int kind) {
    for (int i = p->open.n - 1; i >= 0; i--) {
        if (closes(p->open.at[i].kind, kind)) {
            p->open.n = i;
            return;
        }
        if (p->open.at[i].kind == '{') return;
    }
}

/* After an error inside it, a bracket that is not closed is no news. */
static void unclosed(const Parser *p) {
    const Bracket *b = &p->open.at[p->open.n - 1];
    if (p->error_at <= b->loc.begin) diag_error(b->loc, "this `%c` is never closed", b->kind);
}

/* Before a word that begins a statement, or at the end: parentheses still open are an error. */
static bool close_parens(Parser *p) {
    if (!in_parens(p)) return false;
    unclosed(p);
    while (in_parens(p)) p->open.n--;
    return true;
}

/* Before a word that begins a function, or at the end: so are braces. */
static bool close_braces(Parser *p) {
    if (p->open.n == 0) return false;
    unclosed(p);
    p->missing_braces = p->open.n;
    p->open.n = 0;
    return true;
}

static void track_brackets(Parser *p, const Token *t) {
    if (opens(t->kind)) {
        Bracket b = {t->kind, t->loc};
        vec_push(p->arena, p->open, b);
        if (p->open.n > AST_MAX_NESTING) ast_stop(p, t->loc, "brackets are nested too deeply");
    } else if (t->kind == ')' || t->kind == ']' || t->kind == '}') {
        close_bracket(p, t->kind);
    }
}

/* The next token that is not a newline; *newline says whether there was one before it. */
static Token after_newlines(Parser *p, bool *newline) {
    Token t = {0};
    *newline = p->held;
    if (p->held) {
        p->held = false;
        return p->next;
    }
    while (scan_token(p, &t) == NL) {
        if (!*newline) p->newline = t.loc;
        *newline = true;
    }
    if (!*newline) p->newline = (Loc){p->file, t.loc.begin, t.loc.begin};
    return t;
}

static void hold(Parser *p, Token t) {
    p->next = t;
    p->held = true;
}

/* One token. Errors of layout give YYerror first, which makes the grammar recover without a message of its own. */
static Token choose(Parser *p) {
    bool newline;
    Token t = after_newlines(p, &newline);
    Token end = {.kind = NL, .loc = p->newline};
    if (p->missing_braces > 0) {
        hold(p, t);
        p->missing_braces--;
        end.kind = '}';
        return end;
    }
    bool last = t.kind == YYEOF;
    if (((newline && begins_statement(t.kind)) || last) && close_parens(p)) {
        hold(p, t);
        end.kind = YYerror;
        return end;
    }
    if (((newline && begins_item(t.kind)) || last) && close_braces(p)) {
        hold(p, t);
        return end;
    }
    if ((newline || last) && !in_parens(p) && !wants_more(p->last) && !continues(p, t.kind)) {
        hold(p, t);
        return end;
    }
    track_brackets(p, &t);
    return t;
}

int layout_token(Semantic *value, Loc *loc, Parser *p) {
    Token t = choose(p);
    if (p->stop || diag_errors() >= DIAG_LIMIT) t.kind = YYEOF;
    p->before = p->last;
    p->before_loc = p->last_loc;
    p->last = t.kind;
    p->last_loc = t.loc;
    *value = t.value;
    *loc = t.loc;
    return t.kind;
}
