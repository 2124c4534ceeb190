#!/bin/sh
# embed.sh FILE.moe…: the library's text as C (std.h), on stdout. Bytes as octal escapes, so that any text survives.
set -eu
echo '#include "std.h"'
for f in "$@"; do
    name=$(basename "$f" .moe)
    echo "static const char text_$name[] ="
    od -An -v -to1 "$f" | sed 's/ \([0-7]*\)/\\\1/g; s/^/    "/; s/$/"/'
    echo '    ;'
done
echo 'const StdFile std_files[] = {'
for f in "$@"; do
    name=$(basename "$f" .moe)
    echo "    {\"$name\", text_$name, sizeof text_$name - 1},"
done
echo '};'
echo 'const int std_nfiles = (int)(sizeof std_files / sizeof *std_files);'
