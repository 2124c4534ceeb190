/* weights_fuzz.c: any bytes as the files that a compiled program reads: the first byte chooses the format.
 *
 *   's'  a safetensors file: all of an accepted file's data is read
 *   'n'  an .npy file
 *   'm'  a checkpoint's meta.json, beside weights of a real program
 * Build with -fsanitize=fuzzer,address,undefined. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../runtime/bigram.h"
#include "host.h"

static char dir[] = "/dev/shm/moecc-fuzz-XXXXXX";

static char *file(const char *name) {
    return xformat("%s/%s", dir, name);
}

static void put(const char *name, const void *at, size_t bytes) {
    char *path = file(name);
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(at, 1, bytes, f) != bytes || fclose(f) != 0) abort();
    free(path);
}

static void clean_up(void) {
    const char *const names[] = {"input", "run/model.safetensors", "run/states.safetensors", "run/meta.json", "run"};
    for (int i = 0; i < 5; i++) {
        char *path = file(names[i]);
        remove(path);
        free(path);
    }
    rmdir(dir);
}

static void read_all(const char *at, size_t bytes) {
    static volatile uint64_t sum; /* so that the reading happens */
    sum = sum + bytes_hash(at, bytes);
}

static void message_check(bool ok, const Error *e) {
    if (!ok && e->text[0] == 0) abort(); /* refused without a message */
}

static void try_safetensors(void) {
    Error e = {0};
    StFile f;
    char *path = file("input");
    bool ok = st_open(path, &f, &e);
    message_check(ok, &e);
    for (int i = 0; ok && i < f.n; i++) {
        if (st_find(&f, f.t[i].name) == NULL) abort();
        read_all(f.t[i].at, (size_t)(f.t[i].end - f.t[i].begin));
    }
    if (ok) st_close(&f);
    free(path);
}

static void try_npy(void) {
    Error e = {0};
    Npy a;
    char *path = file("input");
    bool ok = npy_read(path, &a, &e);
    message_check(ok, &e);
    if (ok) read_all(a.at, (size_t)(a.elements * dtype_size(a.dtype)));
    if (ok) free(a.at);
    free(path);
}

static void try_meta(const uint8_t *data, size_t bytes) {
    static Team *team;
    Error e = {0};
    Meta m;
    char *run = file("run");
    if (team == NULL) {
        team = team_new(&moe_program, 1, AT_end, &e);
        if (team == NULL || !checkpoint_save(team, run, &(Meta){1, 2, 3}, &e)) abort();
    }
    put("run/meta.json", data, bytes);
    message_check(checkpoint_load(team, run, &m, &e), &e);
    free(run);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static bool started;
    if (!started && (mkdtemp(dir) == NULL || atexit(clean_up) != 0)) abort();
    started = true;
    if (bytes == 0) return 0;
    if (data[0] == 'm') return try_meta(data + 1, bytes - 1), 0;
    put("input", data + 1, bytes - 1);
    if (data[0] == 's') try_safetensors();
    if (data[0] == 'n') try_npy();
    return 0;
}
