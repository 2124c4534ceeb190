/* std.h: the standard library's text, embedded by embed.sh so that the compiler needs no files of its own. */
#ifndef MOECC_STD_H
#define MOECC_STD_H

#include <stddef.h>

typedef struct StdFile {
    const char *name; /* "nn" */
    const char *text;
    size_t bytes;
} StdFile;

extern const StdFile std_files[];
extern const int std_nfiles;

#endif
