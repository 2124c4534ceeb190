# Every pass row has a folder of goldens.
bad=0
for p in $(sed -n 's/^PASS(\([a-z_]*\),.*/\1/p' passes/passes.def | sort -u); do
    ls tests/passes/"$p"/*.ir >/dev/null 2>&1 || { echo "tests/passes/$p/ has no golden"; bad=1; }
done
exit $bad
