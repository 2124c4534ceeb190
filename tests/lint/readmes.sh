# Every folder explains itself, and its README names each source file.
bad=0
for d in frontend ir passes codegen runtime tests examples; do
    [ -f $d/README.md ] || { echo "$d/README.md is missing"; bad=1; continue; }
    for f in $(git ls-files "$d/*.c" "$d/*.l" "$d/*.y" "$d/*.def" "$d/*.moe" | grep -v '/.*/' ); do
        b=$(basename "$f")
        grep -qF "${b%.*}" $d/README.md || { echo "$d/README.md does not mention $b"; bad=1; }
    done
done
exit $bad
