# No file over 900 lines (600 is the aim); no function over 70 lines (100 is refused).
bad=0
for f in $(git ls-files '*.c' '*.h' '*.l' '*.y' '*.py' '*.sh'); do
    n=$(wc -l <"$f")
    [ "$n" -gt 900 ] && { echo "$f: $n lines (at most 900)"; bad=1; }
    [ "$n" -gt 600 ] && echo "note: $f: $n lines (600 is the aim)"
done
for f in $(git ls-files '*.c'); do
    awk -v f="$f" '/^[A-Za-z_].*\{$/ { start = NR } /^}/ { if (start && NR - start > 70) { print (NR - start > 100 ? "" : "note: ") f ":" start ": function of " NR - start " lines"; if (NR - start > 100) bad = 1 } start = 0 } END { exit bad }' "$f" || bad=1
done
exit $bad
