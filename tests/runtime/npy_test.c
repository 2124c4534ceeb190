/* npy_test.c: arrays that numpy writes, arrays that it would not, and what we write ourselves. */
#include <stdio.h>
#include <unistd.h>

#include "host.h"
#include "rt_test.h"

static const char *path = "npy_test.npy";

static void file_put(const char *magic, const char *dict, size_t claimed, size_t data) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(magic, 1, 8, f);
    fputc((int)(claimed & 255), f);
    fputc((int)(claimed >> 8 & 255), f);
    if (magic[6] > 1) fputc(0, f), fputc(0, f);
    fputs(dict, f);
    for (size_t i = 0; i < data; i++) fputc(i % 4 == 2 ? 0x80 : i % 4 == 3 ? 0x3f : 0, f); /* f4: 1.0 */
    fclose(f);
}

#define V1 "\x93NUMPY\x01\x00"
#define V2 "\x93NUMPY\x02\x00"
#define DICT(descr, order, shape) "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }\n"

static const struct Good {
    const char *magic, *dict;
    size_t data;
    MoeDType dtype;
    int rank;
    int64_t elements;
} good[] = {
    {V1, DICT("'<f4'", "False", "(2, 3)"), 24, MOE_f32, 2, 6},
    {V1, DICT("'<f4'", "False", "()"), 4, MOE_f32, 0, 1},
    {V1, DICT("'<i4'", "False", "(5,)"), 20, MOE_i32, 1, 5},
    {V1, DICT("'|b1'", "False", "(0, 7)"), 0, MOE_bool, 2, 0},
    {V2, DICT("'<f8'", "False", "(3,)"), 24, MOE_f32, 1, 3},
    {V1, "{'shape': (1,), 'fortran_order': False, 'descr': '<f4'}", 4, MOE_f32, 1, 1},
};

static const struct Bad {
    const char *magic, *dict;
    int64_t extra; /* claimed header bytes beyond the dict */
    size_t data;
    const char *message;
} bad[] = {
    {"\x93NUMPX\x01\x00", DICT("'<f4'", "False", "(1,)"), 0, 4, "not a .npy file"},
    {"\x93NUMPY\x04\x00", DICT("'<f4'", "False", "(1,)"), 0, 4, "npy format 4.0 is not supported"},
    {"\x93NUMPY\x01\x02", DICT("'<f4'", "False", "(1,)"), 0, 4, "npy format 1.2 is not supported"},
    {V1, DICT("'<f4'", "False", "(1,)"), 5, 4, "npy header is truncated"},
    {V1, DICT("'>f4'", "False", "(1,)"), 0, 4,
     "npy header: element type '>f4', 'fort; expected '<f4', '<i4', '|b1' or '<f8'"},
    {V1, DICT("'|O'", "False", "(1,)"), 0, 8,
     "npy header: element type '|O', 'fortr; expected '<f4', '<i4', '|b1' or '<f8'"},
    {V1, DICT("'<i8'", "False", "(1,)"), 0, 8,
     "npy header: element type '<i8', 'fort; expected '<f4', '<i4', '|b1' or '<f8'"},
    {V1, DICT("'<f4'", "True", "(1,)"), 0, 4, "npy array is in Fortran order"},
    {V1, DICT("'<f4'", "0", "(1,)"), 0, 4, "npy header: bad fortran_order"},
    {V1, DICT("'<f4'", "False", "[1]"), 0, 4, "npy header: bad shape"},
    {V1, DICT("'<f4'", "False", "(1)"), 0, 4, "npy header: bad shape"},
    {V1, DICT("'<f4'", "False", "(-1,)"), 0, 4, "npy header: bad shape"},
    {V1, DICT("'<f4'", "False", "(1, x)"), 0, 4, "npy header: bad shape"},
    {V1, DICT("'<f4'", "False", "(99999999999999999999,)"), 0, 4, "npy header: bad shape"},
    {V1, DICT("'<f4'", "False", "(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)"), 0, 4,
     "npy header: bad shape"},
    {V1, DICT("'<f4'", "False", "(4294967296, 4294967296)"), 0, 4, "npy shape is too large"},
    {V1, DICT("'<f4'", "False", "(2,)"), 0, 4, "npy data has 4 bytes; its shape and type need 8"},
    {V1, DICT("'<f4'", "False", "(2,)"), 0, 9, "npy data has 9 bytes; its shape and type need 8"},
    {V1, "{'descr': '<f4', 'shape': (1,), }", 0, 4, "npy header: a key is missing"},
    {V1, "{'descr': '<f4', 'descr': '<f4', 'shape': (1,), }", 0, 4, "npy header: unexpected or repeated key"},
    {V1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", 0, 4,
     "npy header: unexpected or repeated key"},
    {V1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} # hi", 0, 4, "npy header: text after the dict"},
    {V1, "{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}", 0, 4, "npy header: not a dict"},
    {V1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)", 0, 0, "npy header: not a dict"},
    {V1, "", 0, 0, "npy header: not a dict"},
    {V1, DICT("'|b1'", "False", "(4,)"), 0, 4, "npy bool that is neither 0 nor 1"},
};

static void test_good(void **state) {
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        Npy a;
        Error e = {0};
        file_put(good[i].magic, good[i].dict, strlen(good[i].dict), good[i].data);
        if (!npy_read(path, &a, &e)) fail_msg("row %d: %s", (int)i, e.text);
        assert_int_equal(a.dtype, good[i].dtype);
        assert_int_equal(a.rank, good[i].rank);
        assert_int_equal(a.elements, good[i].elements);
        if (a.dtype == MOE_f32 && good[i].data == 4 * (size_t)a.elements)
            assert_true(((float *)a.at)[a.elements - 1] == 1.0f);
        free(a.at);
    }
}

static void test_bad(void **state) {
    int wrong = 0;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Npy a;
        Error e = {0};
        char want[300];
        snprintf(want, sizeof want, "%s: %s", path, bad[i].message);
        size_t extra = (size_t)bad[i].extra;
        file_put(bad[i].magic, bad[i].dict, strlen(bad[i].dict) + extra, bad[i].data);
        if (npy_read(path, &a, &e)) free(a.at);
        if (strcmp(e.text, want) != 0) printf("row %d: \"%s\", expected \"%s\"\n", (int)i, e.text, want), wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void test_truncation(void **state) {
    const char *dict = DICT("'<f4'", "False", "(2, 3)");
    for (size_t cut = 0; cut < 10 + strlen(dict) + 24; cut++) {
        Npy a;
        Error e = {0};
        file_put(V1, dict, strlen(dict), 24);
        assert_int_equal(truncate(path, (off_t)cut), 0);
        assert_false(npy_read(path, &a, &e));
        assert_null(a.at);
    }
}

static void test_round_trip(void **state) {
    float x[6] = {1, -2, 3.5f, 0, 1e-30f, 7};
    int64_t shapes[3][3] = {{6}, {2, 3}, {1, 3, 2}};
    for (int rank = 0; rank <= 3; rank++) {
        Error e = {0};
        Npy a;
        if (!npy_write(path, MOE_f32, rank, shapes[rank ? rank - 1 : 0], x, &e)) fail_msg("%s", e.text);
        if (!npy_read(path, &a, &e)) fail_msg("%s", e.text);
        assert_int_equal(a.rank, rank);
        assert_memory_equal(a.at, x, (size_t)a.elements * 4);
        free(a.at);
    }
}

/* Random damage to a valid header: an error, or an array that is all there. */
static void test_mutations(void **state) {
    static const char head[] = DICT("'<f4'", "False", "(2, 3)"), bytes[] = "{}()[]:,'\"0123456789\\ \x01\xff\n-.<>|fib";
    for (int round = 0; round < 20000; round++) {
        char text[200] = {0};
        size_t n = strlen(head);
        memcpy(text, head, n);
        for (uint32_t k = 0, times = 1 + test_random(3); k < times; k++) {
            size_t at = test_random((uint32_t)n);
            uint32_t how = test_random(3);
            if (how == 0) text[at] = bytes[test_random(sizeof bytes - 1)];
            if (how == 1) memmove(text + at, text + at + 1, n - at), n--;
            if (how == 2) memmove(text + at + 1, text + at, n - at), n++;
        }
        text[n] = 0;
        file_put(V1, text, strlen(text), 24);
        Npy a;
        Error e = {0};
        if (!npy_read(path, &a, &e)) {
            assert_true(e.text[0] != 0);
            continue;
        }
        for (int64_t i = 0, size = dtype_size(a.dtype); i < a.elements * size; i++)
            assert_true(((uint8_t *)a.at)[i] < 255);
        free(a.at);
    }
}

static int clean(void **state) {
    unlink(path);
    return 0;
}

int main(void) {
    const char *dir = test_dir();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),       cmocka_unit_test(test_bad),       cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_mutations),
    };
    int failed = cmocka_run_group_tests(tests, NULL, clean);
    if (chdir("/") || rmdir(dir)) return 1;
    return failed;
}
