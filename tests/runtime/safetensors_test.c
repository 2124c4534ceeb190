/* safetensors_test.c: every way we know to malform a header, each with its message; round trips; truncation at every
 * length. A row is a header (JSON text) and the number of data bytes that follow. */
#include <stdio.h>
#include <unistd.h>

#include "host.h"
#include "rt_test.h"

static const char *path = "st_test.safetensors";

static void file_put(uint64_t length, const char *header, size_t header_bytes, size_t data) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (int i = 0; i < 8; i++) fputc((int)(length >> 8 * i & 255), f);
    fwrite(header, 1, header_bytes, f);
    for (size_t i = 0; i < data; i++) fputc((int)(i & 255), f);
    fclose(f);
}

static const struct Bad {
    const char *header;
    size_t data;
    const char *message; /* after "st_test.safetensors: " */
} bad[] = {
    {"", 0, "header does not begin with '{'"},
    {" {}", 0, "header does not begin with '{'"},
    {"\n{}", 0, "header does not begin with '{'"},
    {"\xef\xbb\xbf{}", 0, "header does not begin with '{'"},
    {"[]", 0, "header does not begin with '{'"},
    {"{", 0, "header does not end with '}'"},
    {"{}\n", 0, "header does not end with '}'"},
    {"{} x", 0, "header does not end with '}'"},
    {"{}}", 0, "header: end of file expected near '}'"},
    {"{\"a\":}", 0, "header: unexpected token near '}'"},
    {"{\"a\":1}", 0, "tensor 'a': not an object"},
    {"{/**/}", 0, "header byte 1: only unsigned integers, strings, lists and objects may occur"},
    {"{\"a\":null}", 0, "header byte 5: only unsigned integers, strings, lists and objects may occur"},
    {"{\"__metadata__\":null}", 0, "header byte 16: only unsigned integers, strings, lists and objects may occur"},
    {"{\"__metadata__\":1}", 0, "__metadata__ is not an object"},
    {"{\"__metadata__\":{\"k\":1}}", 0, "__metadata__ 'k' is not a string"},
    {"{\"__metadata__\":{\"k\":\"v\",\"k\":\"w\"}}", 0, "header: duplicate object key near '\"k\"'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_"
     "offsets\":[0,4]}}",
     4, "header: duplicate object key near '\"a\"'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "header: duplicate object key near '\"shape\"'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "tensor 'a': dtype, shape or data_offsets is missing"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "tensor 'a': dtype, shape or data_offsets is missing"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor 'a': dtype, shape or data_offsets is missing"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, "tensor 'a': unknown field"},
    {"{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor 'a': unknown dtype 'F31'"},
    {"{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor 'a': unknown dtype 'f32'"},
    {"{\"a\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor 'a': dtype is not a string"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "tensor 'a': shape is not a list"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]}}", 4, "tensor 'a': a size is not an integer"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4,
     "header byte 29: only unsigned integers, strings, lists and objects may occur"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4,
     "header byte 30: only unsigned integers, strings, lists and objects may occur"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4e0]}}", 4,
     "header byte 51: only unsigned integers, strings, lists and objects may occur"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[true],\"data_offsets\":[0,4]}}", 4,
     "header byte 29: only unsigned integers, strings, lists and objects may occur"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551615],\"data_offsets\":[0,4]}}", 4,
     "header: too big integer near '18446744073709551615'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4,
     "tensor 'a': the shape's product overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
     "tensor 'a': the shape's product overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,0],\"data_offsets\":[0,0]}}", 0,
     "tensor 'a': the shape's product overflows"},
    {"{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", 0,
     "tensor 'a': the shape's product overflows"},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1, "tensor 'a': not a whole number of bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4,
     "tensor 'a': data_offsets is not two integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4,
     "tensor 'a': data_offsets is not two integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":4}}", 4, "tensor 'a': data_offsets is not two integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "tensor 'a': data ends before it begins"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
     "tensor 'a': shape and dtype need 8 bytes, data_offsets give 4"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8,
     "tensor 'a': shape and dtype need 4 bytes, data_offsets give 8"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
     "tensor 'a' begins at 4, after the end of the one before (0)"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_"
     "offsets\":[8,12]}}  ",
     12, "tensor 'b' begins at 8, after the end of the one before (4)"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_"
     "offsets\":[4,8]}}   ",
     8, "tensor 'b' begins at 4, before the end of the one before (8)"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_"
     "offsets\":[0,4]}}   ",
     4, "tensor 'b' begins at 0, before the end of the one before (4)"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}  ", 3, "truncated: 1 bytes of data are missing"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}  ", 5, "1 bytes after the last tensor"},
    {"{}", 1, "1 bytes after the last tensor"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}   ", 4,
     "tensor 'a': its data is not aligned for F32"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_"
     "offsets\":[1,5]}}",
     5, "tensor 'b': its data is not aligned for F32"},
    {"{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "a tensor has an empty name"},
    {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "header: NUL byte in object key not supported near '\"a\\u0000b\"'"},
    {"{\"a\\nb\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "a tensor's name has a control character"},
    {"{\"../../x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "tensor '../../x': the name is a path out of the file"},
    {"{\"a/..\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "tensor 'a/..': the name is a path out of the file"},
    {"{\"/etc/x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "tensor '/etc/x': the name is a path out of the file"},
    {"{\"\xff\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "header: unable to decode byte 0xff near '\"'"},
    {"{\"\\ud800\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "header: invalid Unicode '\\uD800' near '\"\\ud800\"'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},}", 4, "header: string or '}' expected near '}'"},
};

static int wrong;

static void expect(const char *message) {
    StFile f;
    Error e = {0};
    char want[600];
    snprintf(want, sizeof want, "%s: %s", path, message);
    if (st_open(path, &f, &e)) fail_msg("accepted; expected: %s", message);
    if (strcmp(e.text, want) != 0) printf("\"%s\", expected \"%s\"\n", e.text, want), wrong++;
}

static void test_malformed(void **state) {
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        file_put(strlen(bad[i].header), bad[i].header, strlen(bad[i].header), bad[i].data);
        expect(bad[i].message);
    }
    assert_int_equal(wrong, 0);
}

static void test_lengths(void **state) {
    file_put(100000001, "{}", 2, 0);
    expect("header length 100000001; at most 100000000");
    file_put(UINT64_MAX, "{}", 2, 0);
    expect("header length 18446744073709551615; at most 100000000");
    file_put(3, "{}", 2, 0);
    expect("truncated: the header ends after the file");
    assert_int_equal(truncate(path, 7), 0);
    expect("7 bytes are no safetensors file");
    assert_int_equal(truncate(path, 0), 0);
    expect("0 bytes are no safetensors file");
    unlink(path);
    expect("No such file or directory");
    assert_int_equal(wrong, 0);
}

/* Nesting without end must not reach the parser's stack. */
static void test_depth(void **state) {
    size_t n = 200000;
    char *deep = xmalloc(n + 7);
    memcpy(deep, "{\"a\":", 5);
    memset(deep + 5, '[', n);
    memcpy(deep + 5 + n, "}", 2);
    file_put(n + 6, deep, n + 6, 0);
    expect("header: maximum parsing depth reached near '['");
    free(deep);
    assert_int_equal(wrong, 0);
}

/* A valid file, then every shorter one. */
static const char good[] =
    "{\"__metadata__\":{\"k\":\"v\"},\"b\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},\"a\":{"
    "\"dtype\":\"U8\","
    "\"shape\":[3],\"data_offsets\":[16,19]},\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[19,19]}}";

static void test_truncation(void **state) {
    char header[400];
    snprintf(header, sizeof header, "%s", good);
    char *scalar = strstr(header, ",\"s\"");
    strcpy(scalar, "}");
    size_t n = strlen(header);
    while ((8 + n) % 8) header[n++] = ' ';
    for (size_t cut = 0; cut < 8 + n + 19; cut++) {
        StFile f;
        Error e = {0};
        file_put(n, header, n, 19);
        assert_int_equal(truncate(path, (off_t)cut), 0);
        if (st_open(path, &f, &e)) fail_msg("accepted when cut to %zu bytes", cut);
        assert_true(e.text[0] != 0);
    }
    file_put(n, header, n, 19);
    StFile f;
    Error e = {0};
    if (!st_open(path, &f, &e)) fail_msg("%s", e.text);
    assert_int_equal(f.n, 2);
    StTensor *b = st_find(&f, "b");
    assert_non_null(b);
    assert_int_equal(b->shape[1], 2);
    assert_int_equal(b->at[5], 5);
    assert_int_equal(st_find(&f, "a")->dtype, -1);
    assert_null(st_find(&f, "c"));
    st_close(&f);
    /* A scalar needs 4 bytes, not none. */
    file_put(strlen(good), good, strlen(good), 19);
    expect("tensor 's': shape and dtype need 4 bytes, data_offsets give 0");
    assert_int_equal(wrong, 0);
}

static void fill(void *ctx, const StOut *t, void *buffer) {
    memset(buffer, (int)t->index, (size_t)t->bytes);
}

static void test_round_trip(void **state) {
    StOut out[] = {{"z", MOE_bool, 1, {5}, .index = 1},
                   {"x \"q\" \xc3\xa9", MOE_f32, 2, {2, 3}, .index = 2},
                   {"y", MOE_bf16, 0, {0}, .index = 3},
                   {"w", MOE_i32, 1, {0}, .index = 4}};
    Error e = {0};
    if (!st_write(path, 4, out, fill, NULL, &e)) fail_msg("%s", e.text);
    StFile f;
    if (!st_open(path, &f, &e)) fail_msg("%s", e.text);
    assert_int_equal(f.n, 4);
    assert_int_equal(st_find(&f, "x \"q\" \xc3\xa9")->at[23], 2);
    assert_int_equal(st_find(&f, "y")->end - st_find(&f, "y")->begin, 2);
    assert_int_equal(st_find(&f, "z")->at[4], 1);
    assert_string_equal(st_find(&f, "w")->type, "I32");
    st_close(&f);
    StOut meta = {.name = "__metadata__"};
    assert_false(st_write(path, 1, &meta, fill, NULL, &e));
    Error none = {0};
    assert_false(st_write("no/such/dir/x.safetensors", 4, out, fill, NULL, &none));
    assert_string_equal(none.text, "no/such/dir/x.safetensors: No such file or directory");
}

/* Random damage to a valid file: bytes changed, removed, doubled. Whatever is accepted must lie inside the file. */
static void test_mutations(void **state) {
    static const char head[] =
        "{\"b\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},\"a\":{\"dtype\":\"BF16\",\"shape\":[2,1],"
        "\"data_offsets\":[16,20]},\"__metadata__\":{\"k\":\"v\"}}     ";
    static const char bytes[] = "{}[]:,\"0123456789\\ \x00\xff\n-.eE/";
    int accepted = 0;
    for (int round = 0; round < 20000; round++) {
        char text[400];
        size_t n = strlen(head);
        memcpy(text, head, n);
        for (uint32_t k = 0, times = 1 + test_random(4); k < times; k++) {
            size_t at = test_random((uint32_t)n);
            uint32_t how = test_random(4);
            if (how == 0) text[at] = bytes[test_random(sizeof bytes - 1)];
            if (how == 1) memmove(text + at, text + at + 1, --n - at);
            if (how == 2) memmove(text + at + 1, text + at, n++ - at);
            if (how == 3) text[at] = (char)(text[at] ^ 1 << test_random(8));
        }
        file_put(test_random(50) ? n : test_random(400), text, n, 20);
        StFile f;
        Error e = {0};
        if (!st_open(path, &f, &e)) {
            assert_true(e.text[0] != 0);
            continue;
        }
        accepted++;
        int64_t sum = 0;
        for (int i = 0; i < f.n; i++) {
            assert_ptr_equal(st_find(&f, f.t[i].name), &f.t[i]);
            for (int64_t k = 0; k < f.t[i].end - f.t[i].begin; k++) sum += f.t[i].at[k]; /* readable */
        }
        assert_true(sum >= 0);
        st_close(&f);
    }
    assert_true(accepted > 0 && accepted < 10000);
}

static int clean(void **state) {
    unlink(path);
    return 0;
}

int main(void) {
    const char *dir = test_dir();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed),  cmocka_unit_test(test_lengths),    cmocka_unit_test(test_depth),
        cmocka_unit_test(test_truncation), cmocka_unit_test(test_round_trip), cmocka_unit_test(test_mutations),
    };
    int failed = cmocka_run_group_tests(tests, NULL, clean);
    if (chdir("/") || rmdir(dir)) return 1;
    return failed;
}
