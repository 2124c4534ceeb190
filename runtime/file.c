/* file.c: reading by mapping, writing so that a file appears whole or not at all.
 *
 * A new file is written as `<path>.tmp-<pid>` (created exclusively), flushed, fsync'd and renamed over its place; the
 * directory is then fsync'd. A crash leaves the old file, or the new one. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"

bool file_map(const char *path, Mapped *m, Error *e) {
    struct stat st;
    *m = (Mapped){0};
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe without a writer does not stop us */
    if (fd < 0) return error_set(e, "%s: %s", path, strerror(errno));
    bool ok = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (ok && st.st_size > 0) {
        m->bytes = (size_t)st.st_size;
        void *at = mmap(NULL, m->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        m->at = at == MAP_FAILED ? NULL : at;
    }
    close(fd);
    if (!ok) return error_set(e, "%s: not a regular file", path);
    return !m->bytes || m->at || error_set(e, "%s: cannot be mapped", path);
}

void file_unmap(Mapped *m) {
    if (m->at) munmap((void *)(uintptr_t)m->at, m->bytes);
    *m = (Mapped){0};
}

bool newfile_open(NewFile *n, const char *path, Error *e) {
    *n = (NewFile){.path = xformat("%s", path), .temp = xformat("%s.tmp-%ld", path, (long)getpid())};
    unlink(n->temp);
    int fd = open(n->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    n->f = fd < 0 ? NULL : fdopen(fd, "wb");
    if (n->f) return true;
    error_set(e, "%s: %s", path, strerror(errno));
    newfile_abandon(n);
    return false;
}

bool newfile_write(NewFile *n, const void *at, size_t bytes, Error *e) {
    if (!bytes || fwrite(at, 1, bytes, n->f) == bytes) return true;
    return error_set(e, "%s: %s", n->path, strerror(errno));
}

bool newfile_commit(NewFile *n, Error *e) {
    bool ok = fflush(n->f) == 0 && fsync(fileno(n->f)) == 0;
    ok = fclose(n->f) == 0 && ok;
    n->f = NULL;
    ok = ok && rename(n->temp, n->path) == 0;
    if (!ok) error_set(e, "%s: %s", n->path, strerror(errno));
    char *copy = xformat("%s", n->path);
    ok = ok && dir_sync(dirname(copy), e);
    free(copy);
    if (!ok) {
        newfile_abandon(n);
        return false;
    }
    free(n->path);
    free(n->temp);
    return true;
}

void newfile_abandon(NewFile *n) {
    if (n->f) fclose(n->f);
    if (n->temp) unlink(n->temp);
    free(n->path);
    free(n->temp);
    *n = (NewFile){0};
}

bool dir_sync(const char *path, Error *e) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL); /* some file systems cannot sync a directory */
    if (!ok) error_set(e, "%s: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    return ok;
}
