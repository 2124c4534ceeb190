# clang-format leaves every source as it is.
bad=0
for f in $(git ls-files '*.c' '*.h'); do
    clang-format-14 --dry-run -Werror "$f" >/dev/null 2>&1 || { echo "$f: run 'make format'"; bad=1; }
done
exit $bad
