/* intern.h: one copy of every name, so that names compare by pointer. Lives as long as the process. */
#ifndef MOECC_INTERN_H
#define MOECC_INTERN_H

#include <stddef.h>

const char *intern(const char *s);
const char *intern_n(const char *s, size_t n);
const char *intern_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
