/* checkpoint.c: a training run on the disk: a directory that is whole or not there.
 *
 *   DIR/model.safetensors    parameters: what --weights reads, and any other tool
 *   DIR/states.safetensors   states: optimizer moments, running values
 *   DIR/meta.json            {"format", "version", "step", "steps", "seed", "files": {name: hash of its bytes}}
 *
 * Saving writes DIR.tmp-<pid>/, meta.json last, syncs files and directory, then swaps it with DIR in one rename and
 * syncs the parent. A crash leaves the old checkpoint, or the new one, and perhaps a directory that nobody reads.
 * Only files of these names are ever removed. Files are global, so any number of devices resumes. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"
#include "ranks.h"

static const char *const names[] = {"model.safetensors", "states.safetensors", "meta.json"};
enum { NAMES = 3, VERSION = 1 };
static const char format[] = "moecc checkpoint";

static char *inside(const char *dir, const char *name) {
    return xformat("%s/%s", dir, name);
}

static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

/* "a/b/" is "a/b". */
static char *dir_plain(const char *dir) {
    char *d = xformat("%s", dir);
    for (size_t n = strlen(d); n > 1 && d[n - 1] == '/'; n--) d[n - 1] = 0;
    return d;
}

static void remove_checkpoint(const char *dir) {
    for (int i = 0; i < NAMES; i++) {
        char *path = inside(dir, names[i]);
        unlink(path);
        free(path);
    }
    rmdir(dir);
}

/* Four lanes, so that multiplications overlap; the length is part of the start. */
uint64_t bytes_hash(const char *at, size_t n) {
    const uint64_t odd = 0x9E3779B97F4A7C15u;
    uint64_t lane[4] = {n, n + 1, n + 2, n + 3}, h = 0;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t word = 0, *l = &lane[i / 8 % 4];
        memcpy(&word, at + i, n - i < 8 ? n - i : 8);
        *l = (*l ^ word) * odd;
        *l ^= *l >> 29;
    }
    for (int k = 0; k < 4; k++) h = (h ^ lane[k]) * odd, h ^= h >> 32;
    return h;
}

bool checkpoint_probe(const char *dir, Error *e) {
    if (ranks_self()) return true; /* rank 0 writes */
    char *d = dir_plain(dir), *meta = inside(d, "meta.json"), *copy = xformat("%s", d);
    bool ok = true;
    if (exists(d) && !exists(meta) && rmdir(d) != 0)
        ok = error_set(e, "%s: exists and is not a checkpoint; give --save another place", dir);
    if (ok && access(dirname(copy), W_OK) != 0)
        ok = error_set(e, "%s: cannot be written here: %s", dir, strerror(errno));
    free(copy);
    free(meta);
    free(d);
    return ok;
}

/* ---- saving ------------------------------------------------------------------------------------------------- */

/* Hash of a file in hex; false when it cannot be read. */
static bool file_hash(const char *dir, const char *name, char *hex, Error *e) {
    Mapped m;
    char *path = inside(dir, name);
    bool ok = file_map(path, &m, e);
    if (ok) snprintf(hex, 17, "%016llx", (unsigned long long)bytes_hash(m.at, m.bytes));
    file_unmap(&m);
    free(path);
    return ok;
}

static bool meta_write(const char *dir, const Meta *m, Error *e) {
    char model[17], states[17];
    if (!file_hash(dir, names[0], model, e) || !file_hash(dir, names[1], states, e)) return false;
    json_t *root = json_pack("{s:s,s:i,s:I,s:I,s:I,s:{s:s,s:s}}", "format", format, "version", VERSION, "step",
                             (json_int_t)m->step, "steps", (json_int_t)m->steps, "seed", (json_int_t)m->seed, "files",
                             names[0], model, names[1], states);
    char *text = json_dumps(root, JSON_INDENT(1)), *path = inside(dir, names[2]);
    NewFile f;
    bool ok = newfile_open(&f, path, e);
    if (ok) {
        ok = newfile_write(&f, text, strlen(text), e) && newfile_write(&f, "\n", 1, e);
        ok = ok ? newfile_commit(&f, e) : (newfile_abandon(&f), false);
    }
    json_decref(root);
    free(text);
    free(path);
    return ok;
}

static bool write_into(Team *t, const char *temp, const Meta *m, Error *e) {
    if (mkdir(temp, 0777) != 0) return error_set(e, "%s: %s", temp, strerror(errno));
    char *model = inside(temp, names[0]), *states = inside(temp, names[1]);
    bool ok = vars_save(t, model, VARS_params, e) && vars_save(t, states, VARS_states, e) && meta_write(temp, m, e) &&
              dir_sync(temp, e);
    free(model);
    free(states);
    return ok;
}

/* The new directory takes the old one's place. Swapping is one step; a file system without it needs two. */
static bool put_in_place(const char *temp, const char *dir, Error *e) {
    if (rename(temp, dir) == 0) return true;
    if (renameat2(AT_FDCWD, temp, AT_FDCWD, dir, RENAME_EXCHANGE) == 0) return remove_checkpoint(temp), true;
    char *old = xformat("%s.old-%ld", dir, (long)getpid());
    bool ok = rename(dir, old) == 0 && rename(temp, dir) == 0;
    if (!ok) error_set(e, "%s: %s", dir, strerror(errno));
    if (ok) remove_checkpoint(old);
    free(old);
    return ok;
}

bool checkpoint_save(Team *t, const char *where, const Meta *m, Error *e) {
    if (ranks_self()) return vars_save(t, where, VARS_params, e) && vars_save(t, where, VARS_states, e);
    char *dir = dir_plain(where), *temp = xformat("%s.tmp-%ld", dir, (long)getpid()), *copy = xformat("%s", dir);
    remove_checkpoint(temp);
    bool ok = checkpoint_probe(dir, e) && write_into(t, temp, m, e) && put_in_place(temp, dir, e);
    if (!ok) remove_checkpoint(temp);
    ok = ok && dir_sync(dirname(copy), e);
    free(copy);
    free(temp);
    free(dir);
    return ok;
}

/* ---- loading ------------------------------------------------------------------------------------------------ */

static bool meta_field(const char *path, json_t *root, const char *name, int64_t low, int64_t high, int64_t *out,
                       Error *e) {
    json_t *v = json_object_get(root, name);
    if (!json_is_integer(v) || json_integer_value(v) < low || json_integer_value(v) > high)
        return error_set(e, "%s: '%s' is missing or out of range", path, name);
    *out = json_integer_value(v);
    return true;
}

static bool meta_parse(const char *dir, const char *path, json_t *root, Meta *m, Error *e) {
    int64_t version;
    const char *kind = json_string_value(json_object_get(root, "format"));
    if (!kind || strcmp(kind, format) != 0) return error_set(e, "%s: not a checkpoint's meta.json", path);
    if (!meta_field(path, root, "version", VERSION, VERSION, &version, e) ||
        !meta_field(path, root, "step", 0, INT32_MAX, &m->step, e) ||
        !meta_field(path, root, "steps", 0, INT32_MAX, &m->steps, e) ||
        !meta_field(path, root, "seed", 0, UINT32_MAX, &m->seed, e))
        return false;
    json_t *files = json_object_get(root, "files");
    for (size_t i = 0; i < 2; i++) {
        char hex[17];
        const char *want = json_string_value(json_object_get(files, names[i]));
        if (!file_hash(dir, names[i], hex, e)) return false;
        if (!want || strcmp(want, hex) != 0)
            return error_set(e, "%s/%s: damaged: not the file that meta.json was written with", dir, names[i]);
    }
    return true;
}

static bool meta_read(const char *dir, Meta *m, Error *e) {
    char *path = inside(dir, "meta.json");
    Mapped f;
    json_error_t why;
    bool ok = file_map(path, &f, e);
    if (ok) {
        json_t *root = f.bytes && f.bytes < 1 << 20 ? json_loadb(f.at, f.bytes, JSON_REJECT_DUPLICATES, &why) : NULL;
        ok = root ? meta_parse(dir, path, root, m, e) : error_set(e, "%s: not a checkpoint's meta.json", path);
        json_decref(root);
        file_unmap(&f);
    }
    free(path);
    return ok;
}

/* The states of a part come with those of the training that made it, which are left where they are. */
static bool load_dir(Team *t, const char *dir, bool states_optional, const Part *part, Error *e) {
    char *model = inside(dir, names[0]), *states = inside(dir, names[1]);
    bool ok = vars_load(t, model, VARS_params, false, part, e);
    Part rest = *part;
    rest.lenient = part->path != NULL;
    if (ok && (!states_optional || exists(states))) ok = vars_load(t, states, VARS_states, false, &rest, e);
    free(model);
    free(states);
    return ok;
}

bool checkpoint_load(Team *t, const char *dir, Meta *m, Error *e) {
    return meta_read(dir, m, e) && load_dir(t, dir, false, &(Part){0}, e);
}

bool weights_load(Team *t, const char *path, const Part *part, Error *e) {
    struct stat st;
    if (stat(path, &st) != 0) return error_set(e, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode)) return vars_load(t, path, VARS_params, false, part, e);
    Meta m;
    char *meta = inside(path, "meta.json");
    bool ok = !exists(meta) || meta_read(path, &m, e);
    free(meta);
    return ok && load_dir(t, path, true, part, e);
}

bool means_load(Team *t, const char *path, Error *e) {
    char *states = inside(path, names[1]);
    bool ok = vars_load(t, states, VARS_params, true, &(Part){.lenient = true, .mean = true}, e);
    free(states);
    return ok;
}
