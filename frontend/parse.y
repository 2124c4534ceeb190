/* parse.y: the grammar. Actions only build the tree.
 *
 * LALR(1) without conflicts. Most words of the language are also names wherever a name may stand (`word` below lists
 * them), so that a model may call a tensor `step` or an axis `at`; only those that would make a statement ambiguous
 * are reserved. An error is recovered at the end of its statement, or at a brace before that (the error was in the
 * header of a function, an `if` or a loop), so that the statements of the block are still checked. Messages say what
 * stands there, and what could. */
%define api.pure full
%define api.location.type {Loc}
%define api.value.type {Semantic}
%define parse.error custom
%define parse.lac full
%locations
%expect 0
%param {Parser *p}

%code top {
#include <string.h>

#include "support/intern.h"
#include "support/str.h"
#include "syntax.h"
}
%code requires { #include "syntax.h" }

%code provides {
/* The stack holds a few entries a bracket; AST_MAX_NESTING of them fit. */
#define YYMAXDEPTH 20000
#define YYLLOC_DEFAULT(Current, Rhs, N)                                                                      \
    ((Current) = (N) > 0 ? loc_join(YYRHSLOC(Rhs, 1), YYRHSLOC(Rhs, N))                                      \
                         : (Loc){YYRHSLOC(Rhs, 0).file, YYRHSLOC(Rhs, 0).end, YYRHSLOC(Rhs, 0).end})
}

%code {
static int yylex(Semantic *value, Loc *loc, Parser *p) { return layout_token(value, loc, p); }
static void yyerror(const Loc *loc, Parser *p, const char *message);
static Ast *named_at(Loc loc, Ast *node) {
    node->name_loc = loc;
    return node;
}
#define LEAF(kind, loc, name) ast_leaf(p, AST_##kind, loc, name)
#define KIDS(kind, loc, name, ...) ast_new(p, AST_##kind, loc, name, AST_KIDS(__VA_ARGS__))
#define OF(kind, loc, name, list) ast_of(p, AST_##kind, loc, name, list)
#define BEFORE(kind, loc, name, first, list) ast_before(p, AST_##kind, loc, name, first, list)
#define BINARY(op, x, y) ast_binary(p, op, x, y)
#define NONE ast_list(p, NULL)
#define ONE(node) ast_list(p, node)
#define ADD(list, node) ast_list_add(p, list, node)
#define NAMED(loc, node) named_at(loc, node)
}

%token YYEOF 0 "the end of the file"
%token NL "the end of the line"
%token <name> ID "a name" STR "a string"
%token <node> NUM "a number"
%token ARROW "->" DOTS ".." ELLIPSIS "..." POW "**" LE "<=" GE ">=" EQ "==" NE "!="
/* Reserved, from FN to NOT (reserved() asks for that range). */
%token FN "fn" ENTRY "entry" PARAM "param" STATE "state" DIM "dim" CONST "const" RETURN "return" FOR "for" IN "in"
       IF "if" ELSE "else" FROM "from" AS "as" AND "and" OR "or" NOT "not"
/* Names as well. */
%token <name> MESH "mesh" AXIS "axis" DTYPE "dtype" IMPORT "import" FUSED "fused" MANUAL "manual" METRIC "metric"
       SCOPE "scope" AT "at" STEP "step" EACH "each" TRAIN "train" GENERATE "generate" WITH "with" AFTER "after"
       FROZEN "frozen"

%type <name> word path alias
%type <node> module import kv fn_rest fn_arg result type label label_x where manual init view layout_item def
             block ifs place prim call postfix e branch arg arrow_to label_e word_value groups group element
             target_slice
%type <list> items item imports kvs bindings names generics fn_args fn_args1 results result_list labels labels1
             layout declaration defs keys dtypes seq seq_item stmt places es array labs args args1
             words group_seq group_item patterns sizes after

/* loosest first */
%precedence EACH_BODY
%left OR
%left AND
%precedence NOT
%nonassoc '<' '>' LE GE EQ NE
%left '+' '-'
%left '*' '/' '%'
%precedence NEGATION
%right POW

%%

file: items                         { p->file_node = OF(file, @$, NULL, $1); }
items: item
    | items sep item                { $$ = ast_list_join(p, $1, $3); }
/* Here the parser has recovered: the next error is news. */
sep: NL                             { yyerrok; }
    | ';'                           { yyerrok; }

item: %empty                        { $$ = NONE; }
    | error                         { $$ = NONE; }
    | error body                    { $$ = NONE; }
    | declaration
    | IMPORT imports                { $$ = $2; }
    | MESH '[' kvs ']'              { $$ = ONE(OF(mesh, @$, NULL, $3)); }
    | AXIS word '=' '(' names ')'   { $$ = ONE(NAMED(@2, OF(axis, @$, $2, $5))); }
    | AXIS word '=' word            { $$ = ONE(NAMED(@2, KIDS(axis, @$, $2, LEAF(name, @4, $4)))); }
    | DTYPE dtypes                  { $$ = $2; }
    | FN fn_rest                    { $2->loc = @$; $$ = ONE($2); }
    | FUSED FN fn_rest              { $3->loc = @$; $3->fused = true; $$ = ONE($3); }
    | ENTRY fn_rest                 { $2->loc = @$; $2->entry = true; $$ = ONE($2); }
    | TRAIN word WITH call words {
        Ast *all = KIDS(group, @4, NULL, LEAF(list, @4, NULL), $4);
        $$ = ONE(NAMED(@2, KIDS(train, @$, $2, KIDS(list, @4, NULL, all), OF(list, @5, NULL, $5))));
      }
    | TRAIN word WITH groups words  { $$ = ONE(NAMED(@2, KIDS(train, @$, $2, $4, OF(list, @5, NULL, $5)))); }
    | GENERATE WITH word AT '(' sizes ')' after
                                    { $$ = ONE(NAMED(@3, BEFORE(generate, @$, $3, OF(list, @6, NULL, $6), $8))); }

/* ---- declarations of a file ---- */

imports: import                     { $$ = ONE($1); }
    | imports ',' import            { $$ = ADD($1, $3); }
import: module alias bindings       { $$ = BEFORE(import, @$, $2, $1, $3); }
    | module alias FROZEN bindings  { $$ = BEFORE(import, @$, $2, $1, $4); $$->frozen = true; }
module: word                        { $$ = LEAF(name, @$, $1); }
    | STR                           { $$ = LEAF(str, @$, $1); }
alias: %empty                       { $$ = NULL; }
    | AS word                       { $$ = $2; }
bindings: %empty                    { $$ = NONE; }
    | '(' kvs ')'                   { $$ = $2; }

kvs: kv                             { $$ = ONE($1); }
    | kvs ',' kv                    { $$ = ADD($1, $3); }
kv: word ':' e                      { $$ = NAMED(@1, KIDS(named, @$, $1, $3)); }
names: word                         { $$ = ONE(LEAF(name, @1, $1)); }
    | names ',' word                { $$ = ADD($1, LEAF(name, @3, $3)); }
dtypes: word '=' word               { $$ = ONE(NAMED(@1, KIDS(dtype, @$, $1, LEAF(name, @3, $3)))); }
    | dtypes ',' word '=' word      { $$ = ADD($1, NAMED(@3, KIDS(dtype, @$, $3, LEAF(name, @5, $5)))); }

words: %empty                       { $$ = NONE; }
    | words ID word_value           { $$ = ADD($1, NAMED(@2, KIDS(named, loc_join(@2, @3), $2, $3))); }
word_value: NUM
    | path                          { $$ = LEAF(name, @$, $1); }
    | '(' e ')'                     { $$ = $2; }
groups: '{' group_seq '}'           { $$ = OF(list, @$, NULL, $2); }
    | '{' group_seq '}' error       { $$ = OF(list, @$, NULL, $2); }
group_seq: group_item
    | group_seq sep group_item      { $$ = ast_list_join(p, $1, $3); }
group_item: %empty                  { $$ = NONE; }
    | error                         { $$ = NONE; }
    | group                         { $$ = ONE($1); }
group: patterns ':' call            { $$ = KIDS(group, @$, NULL, OF(list, @1, NULL, $1), $3); }
    | patterns ':' FROZEN           { $$ = KIDS(group, @$, NULL, OF(list, @1, NULL, $1), NULL); }
patterns: STR                       { $$ = ONE(LEAF(str, @1, $1)); }
    | patterns ',' STR              { $$ = ADD($1, LEAF(str, @3, $3)); }

sizes: word ':' e                   { $$ = ONE(NAMED(@1, KIDS(named, @$, $1, $3))); }
    | sizes ',' word ':' e          { $$ = ADD($1, NAMED(@3, KIDS(named, loc_join(@3, @5), $3, $5))); }
    | sizes ',' e                   { $$ = ast_list_more(p, $1, $3); }
after: %empty                       { $$ = NONE; }
    | AFTER word                    { $$ = ONE(LEAF(name, @2, $2)); }

/* ---- functions ---- */

fn_rest: word generics '(' fn_args ')' results manual block {
        Ast *args = OF(list, @4, NULL, $4), *rets = OF(list, @6, NULL, $6);
        $$ = NAMED(@1, KIDS(fn, @$, $1, OF(list, @2, NULL, $2), args, rets, $7, $8));
      }
generics: %empty                    { $$ = NONE; }
    | '<' names '>'                 { $$ = $2; }
fn_args: %empty                     { $$ = NONE; }
    | fn_args1
fn_args1: fn_arg                    { $$ = ONE($1); }
    | fn_args1 ',' fn_arg           { $$ = ADD($1, $3); }
fn_arg: word                        { $$ = NAMED(@1, KIDS(arg, @$, $1, NULL, NULL)); }
    | word ':' type                 { $$ = NAMED(@1, KIDS(arg, @$, $1, $3, NULL)); }
    | word ':' type '=' e           { $$ = NAMED(@1, KIDS(arg, @$, $1, $3, $5)); }
    | word '=' e                    { $$ = NAMED(@1, KIDS(arg, @$, $1, NULL, $3)); }
results: %empty                     { $$ = NONE; }
    | ARROW type                    { $$ = ONE(KIDS(result, @2, NULL, $2)); }
    | ARROW '(' result_list ')'     { $$ = $3; }
result_list: result                 { $$ = ONE($1); }
    | result_list ',' result        { $$ = ADD($1, $3); }
result: type                        { $$ = KIDS(result, @$, NULL, $1); }
    | word ':' type                 { $$ = NAMED(@1, KIDS(result, @$, $1, $3)); }
manual: %empty                      { $$ = NULL; }
    | MANUAL '(' names ')'          { $$ = OF(list, @$, NULL, $3); }

/* ---- types ---- */

type: path '[' labels ']'           { $$ = OF(type, @$, $1, $3); }
    | '?' '[' labels ']'            { $$ = OF(type, @$, intern("?"), $3); }
    | path                          { $$ = LEAF(type, @$, $1); $$->bare = true; }
labels: %empty                      { $$ = NONE; }
    | labels1
labels1: label                      { $$ = ONE($1); }
    | labels1 ',' label             { $$ = ADD($1, $3); }
label: label_x                      { $$ = KIDS(label, @$, NULL, $1, NULL); }
    | label_x '@' where             { $$ = KIDS(label, @$, NULL, $1, $3); }
label_x: e
    | ELLIPSIS                      { $$ = LEAF(ellipsis, @$, NULL); }
where: word                         { $$ = KIDS(list, @$, NULL, LEAF(name, @1, $1)); }
    | '?'                           { $$ = LEAF(any, @$, NULL); }
    | '(' ')'                       { $$ = LEAF(list, @$, NULL); }
    | '(' names ')'                 { $$ = OF(list, @$, NULL, $2); }

/* ---- statements ---- */

declaration: PARAM word ':' type init view { $$ = ONE(NAMED(@2, KIDS(param, @$, $2, $4, $5, $6))); }
    | STATE word ':' type init view { $$ = ONE(NAMED(@2, KIDS(state, @$, $2, $4, $5, $6))); }
    | DIM defs                      { $$ = $2; }
    | CONST defs                    { $$ = ast_list_kind($2, AST_const); }
init: %empty                        { $$ = NULL; }
    | '=' e                         { $$ = $2; }
view: %empty                        { $$ = NULL; }
    | FROM STR                      { $$ = NAMED(@2, KIDS(from, @$, $2, NULL, NULL)); }
    | FROM STR '[' layout ']'       { $$ = NAMED(@2, KIDS(from, @$, $2, OF(list, @4, NULL, $4), NULL)); }
    | FROM STR '[' layout ']' '[' target_slice ']'
                                    { $$ = NAMED(@2, KIDS(from, @$, $2, OF(list, @4, NULL, $4), $7)); }
target_slice: e ':' e DOTS e        { $$ = KIDS(index, @$, NULL, NULL, $1, $3, $5); }
layout: layout_item                 { $$ = ONE($1); }
    | layout ',' layout_item        { $$ = ADD($1, $3); }
layout_item: e
    | '(' e ',' es ')'              { $$ = BEFORE(list, @$, NULL, $2, $4); }
defs: def                           { $$ = ONE($1); }
    | defs ',' def                  { $$ = ADD($1, $3); }
def: word '=' e                     { $$ = NAMED(@1, KIDS(dim, @$, $1, $3)); }
    | word '=' e FROM keys          { $$ = NAMED(@1, BEFORE(dim, @$, $1, $3, $5)); }
keys: STR                           { $$ = ONE(LEAF(str, @1, $1)); }
    | keys OR STR                   { $$ = ADD($1, LEAF(str, @3, $3)); }

block: '{' seq '}'                  { $$ = OF(block, @$, NULL, $2); }
    | '{' seq '}' error             { $$ = OF(block, @$, NULL, $2); } /* else recovery would undo the block */
/* What follows a header that was wrong: its statements are checked all the same. */
body: block | block ELSE block | block ELSE ifs
seq: seq_item
    | seq sep seq_item              { $$ = ast_list_join(p, $1, $3); }
seq_item: %empty                    { $$ = NONE; }
    | error                         { $$ = NONE; }
    | error body                    { $$ = NONE; }
    | stmt
stmt: declaration
    | places '=' es                 { $$ = ONE(ast_assign(p, @$, OF(list, @1, NULL, $1), OF(list, @3, NULL, $3))); }
    | places                        { $$ = NONE; ast_unused(p, @$); }
    | RETURN                        { $$ = ONE(LEAF(return, @$, NULL)); }
    | RETURN es                     { $$ = ONE(OF(return, @$, NULL, $2)); }
    | METRIC word '=' e             { $$ = ONE(NAMED(@2, KIDS(metric, @$, $2, $4))); }
    | SCOPE STR block               { $$ = ONE(NAMED(@2, KIDS(scope, @$, $2, $3))); }
    | AT STEP block                 { $$ = ONE(KIDS(at_step, @$, NULL, $3)); }
    | FOR word IN e DOTS e block    { $$ = ONE(NAMED(@2, KIDS(for, @$, $2, $4, $6, $7))); }
    | ifs                           { $$ = ONE($1); }
ifs: IF e block                     { $$ = KIDS(if, @$, NULL, $2, $3, NULL); }
    | IF e block ELSE block         { $$ = KIDS(if, @$, NULL, $2, $3, $5); }
    | IF e block ELSE ifs           { $$ = KIDS(if, @$, NULL, $2, $3, KIDS(block, @5, NULL, $5)); }
places: place                       { $$ = ONE($1); }
    | places ',' place              { $$ = ADD($1, $3); }
place: postfix                      { $$ = $1; }

/* ---- expressions ---- */

es: e                               { $$ = ONE($1); }
    | es ',' e                      { $$ = ADD($1, $3); }
e: postfix
    | e '+' e                       { $$ = BINARY("+", $1, $3); }
    | e '-' e                       { $$ = BINARY("-", $1, $3); }
    | e '*' e                       { $$ = BINARY("*", $1, $3); }
    | e '/' e                       { $$ = BINARY("/", $1, $3); }
    | e '%' e                       { $$ = BINARY("%", $1, $3); }
    | e POW e                       { $$ = BINARY("**", $1, $3); }
    | e '<' e                       { $$ = BINARY("<", $1, $3); }
    | e '>' e                       { $$ = BINARY(">", $1, $3); }
    | e LE e                        { $$ = BINARY("<=", $1, $3); }
    | e GE e                        { $$ = BINARY(">=", $1, $3); }
    | e EQ e                        { $$ = BINARY("==", $1, $3); }
    | e NE e                        { $$ = BINARY("!=", $1, $3); }
    | e AND e                       { $$ = BINARY("and", $1, $3); }
    | e OR e                        { $$ = BINARY("or", $1, $3); }
    | NOT e                         { $$ = KIDS(unary, @$, intern("not"), $2); }
    | '-' e %prec NEGATION          { $$ = KIDS(unary, @$, intern("-"), $2); }
    | IF e '{' e '}' ELSE branch    { $$ = KIDS(cond, @$, NULL, $2, $4, $7); }
    | EACH word ':' e %prec EACH_BODY { $$ = NAMED(@2, KIDS(each, @$, $2, $4)); }
branch: '{' e '}'                   { $$ = $2; }
    | IF e '{' e '}' ELSE branch    { $$ = KIDS(cond, @$, NULL, $2, $4, $7); }
postfix: prim
    | postfix '[' e ']'             { $$ = KIDS(index, @$, NULL, $1, NULL, $3, NULL); }
    | postfix '[' e ':' e ']'       { $$ = KIDS(index, @$, NULL, $1, $3, $5, NULL); }
    | postfix '[' e ':' e DOTS e ']' { $$ = KIDS(index, @$, NULL, $1, $3, $5, $7); }
    | postfix AS '(' labs ARROW labs ')'
                                    { $$ = KIDS(relabel, @$, NULL, $1, OF(list, @4, NULL, $4),
                                                OF(list, @6, NULL, $6)); }
    | postfix IN STR                { $$ = NAMED(@3, KIDS(scoped, @$, $3, $1)); }
labs: es
prim: path                          { $$ = LEAF(name, @$, $1); }
    | NUM
    | STR                           { $$ = LEAF(str, @$, $1); }
    | '?'                           { $$ = LEAF(any, @$, NULL); }
    | '(' e ')'                     { $$ = $2; }
    | '[' ']'                       { $$ = LEAF(array, @$, NULL); }
    | '[' array ']'                 { $$ = OF(array, @$, NULL, $2); }
    | call
array: element                      { $$ = ONE($1); }
    | array ',' element             { $$ = ADD($1, $3); }
element: e
    | ELLIPSIS                      { $$ = LEAF(ellipsis, @$, NULL); }
call: path '(' args ')'             { $$ = NAMED(@1, OF(call, @$, $1, $3)); }
args: %empty                        { $$ = NONE; }
    | args1
args1: arg                          { $$ = ONE($1); }
    | args1 ',' arg                 { $$ = ADD($1, $3); }
arg: e
    | e ':' e                       { $$ = ast_named(p, $1, $3); }
    | e ARROW arrow_to              { $$ = KIDS(arrow, @$, NULL, $1, $3); }
arrow_to: '[' labels ']'            { $$ = OF(type, @$, NULL, $2); }
    | path '[' labels ']'           { $$ = OF(type, @$, $1, $3); }
    | '?' '[' labels ']'            { $$ = OF(type, @$, intern("?"), $3); }
    | label_e
/* What can follow an arrow besides a type: a label, without indexing (f32[…] is a type there). */
label_e: path                       { $$ = LEAF(name, @$, $1); }
    | NUM
    | '(' label_e ')'               { $$ = $2; }
    | label_e '+' label_e           { $$ = BINARY("+", $1, $3); }
    | label_e '-' label_e           { $$ = BINARY("-", $1, $3); }
    | label_e '*' label_e           { $$ = BINARY("*", $1, $3); }
    | label_e '/' label_e           { $$ = BINARY("/", $1, $3); }

/* A dotted name reaches into an imported module. */
path: word
    | path '.' word                 { $$ = ast_dotted(p, @$, $1, $3); }
/* What may be a name: identifiers, and the words of the language that need no reserving. */
word: ID | MESH | AXIS | DTYPE | IMPORT | FUSED | MANUAL | METRIC | SCOPE | AT | STEP | EACH | TRAIN | GENERATE | WITH
    | AFTER | FROZEN

%%

/* ---- messages ---- */

/* First tokens that one word can stand for: listing them all would tell less. Each list ends with 0. */
static const int words[] = {MESH, AXIS,  DTYPE, IMPORT,   FUSED, MANUAL, METRIC, SCOPE, AT,
                            STEP, EACH, TRAIN, GENERATE, WITH,  AFTER,  FROZEN, 0};
static const int operators[] = {'+', '-', '*', '/', '%', '<', '>', POW, LE, GE, EQ, NE, AND, OR, 0};
static const int suffixes[] = {'.', '[', '(', AS, IN, 0};
static const int values[] = {ID, NUM, STR, '(', '[', '-', '?', NOT, IF, ELLIPSIS, 0};
static const int statements[] = {ID, NUM, STR, '(', '[', '?', PARAM, STATE, DIM, CONST, RETURN, FOR, IF, 0};
static const int declarations[] = {FN, ENTRY, PARAM, STATE, DIM, CONST, NL, 0};

typedef struct Expected {
    bool at[YYNTOKENS];
} Expected;

static void expect_without(Expected *set, const int *tokens) {
    for (; *tokens != YYEOF; tokens++) set->at[YYTRANSLATE(*tokens)] = false;
}

/* Fills `names` with what could come; returns their number. */
static int expected_names(Expected set, const char **names) {
    bool item = set.at[YYSYMBOL_FN], name = set.at[YYSYMBOL_ID], value = set.at[YYSYMBOL_NUM] && set.at[YYSYMBOL_NOT];
    const struct {
        bool holds;
        const char *word; /* NULL: the tokens go without saying */
        const int *tokens;
    } classes[] = {{item, "a declaration", declarations},
                   {item || set.at[YYSYMBOL_RETURN] || name, NULL, words},
                   {set.at[YYSYMBOL_RETURN], "a statement", statements},
                   {value, "a value", values},
                   {set.at[YYSYMBOL_POW], "an operator", operators},
                   {set.at[YYSYMBOL_AS], NULL, suffixes}};
    int count = 0;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (!classes[i].holds) continue;
        if (classes[i].word != NULL) names[count++] = classes[i].word;
        expect_without(&set, classes[i].tokens);
    }
    if (item || set.at[YYSYMBOL_NL]) set.at[YYTRANSLATE(';')] = false;
    if (set.at[YYSYMBOL_NL]) set.at[YYSYMBOL_YYEOF] = false;
    set.at[YYSYMBOL_YYerror] = false;
    for (int i = 0; i < YYNTOKENS; i++)
        if (set.at[i]) names[count++] = yysymbol_name((yysymbol_kind_t)i);
    return count;
}

/* Tokens stand in backquotes, "a name" does not. Bison calls a character '+', quotes included. */
static void add_name(Str *s, const char *name) {
    if (strchr(name, ' ') != NULL)
        str_add(s, name);
    else if (name[0] == '\'')
        str_addf(s, "`%c`", name[1]);
    else
        str_addf(s, "`%s`", name);
}

static bool reserved(int token) { return token >= FN && token <= NOT; }

static const char *token_text(const Parser *p, Loc loc) {
    uint32_t n = loc.end - loc.begin;
    return arena_printf(p->arena, "%.*s", (int)(n < 60 ? n : 60), p->text + loc.begin);
}

/* What the writer may have meant, after the bare facts. */
static const char *hint(yysymbol_kind_t found, const Expected *set, const Parser *p) {
    static const int comparisons[] = {'<', '>', LE, GE, EQ, NE, 0};
    if (found == YYTRANSLATE('=') && set->at[YYTRANSLATE(ARROW)]) return " (a named argument is `name: value`)";
    if (found == YYTRANSLATE('=') && set->at[YYTRANSLATE(EQ)]) return " (`==` compares)";
    for (const int *c = comparisons; *c != 0 && set->at[YYTRANSLATE('+')]; c++)
        if (found == YYTRANSLATE(*c)) return " (comparisons do not chain: join them with `and`)";
    if (set->at[YYSYMBOL_ID] && reserved(p->last)) return " (it is a word of the language)";
    if (found == YYTRANSLATE('=') && reserved(p->before))
        return arena_printf(p->arena, " (`%s` is a word of the language)", token_text(p, p->before_loc));
    return "";
}

/* "`)` is unexpected; expected a value or `,`", at the token that cannot be. */
static int yyreport_syntax_error(const yypcontext_t *context, Parser *p) {
    if (p->stop || diag_errors() >= DIAG_LIMIT) return 0;
    Loc loc = *yypcontext_location(context);
    yysymbol_kind_t found = yypcontext_token(context), at[YYNTOKENS];
    Expected set = {0};
    for (int i = yypcontext_expected_tokens(context, at, YYNTOKENS); i-- > 0;) set.at[at[i]] = true;
    const char *names[YYNTOKENS];
    int n = expected_names(set, names);
    Str s = str_new(p->arena);
    if (loc.end > loc.begin && found != YYSYMBOL_YYEOF && found != YYSYMBOL_NL)
        str_addf(&s, "`%s`", token_text(p, loc));
    else
        add_name(&s, yysymbol_name(found));
    str_add(&s, " is unexpected");
    for (int i = 0; i < n && n <= 6; i++) {
        str_add(&s, i == 0 ? "; expected " : i == n - 1 ? " or " : ", ");
        add_name(&s, names[i]);
    }
    diag_error(loc, "%s%s", s.at, hint(found, &set, p));
    p->error_at = loc.begin;
    return 0;
}

/* Only "memory exhausted" comes here: the stack is full. */
static void yyerror(const Loc *loc, Parser *p, const char *message) {
    (void)message;
    ast_stop(p, *loc, "this nests too deeply");
}
