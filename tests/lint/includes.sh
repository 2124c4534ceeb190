# Who may include whom: ir/support <- ir <- {frontend, passes, codegen}; only frontend/main.c sees all; the runtime and
# the compiler see nothing of each other; hwloc is seen by passes/topology.c and runtime/team.c only, MPI by
# runtime/comm_mpi.c only.
bad=0
complain() { echo "$1"; bad=1; }
check() { # folder, headers it must not include
    for f in $(git ls-files "$1/*.[chly]"); do
        [ "$f" = frontend/main.c ] && continue
        grep -nE "^#include \"($2)\"" "$f" | sed "s|^|$f:|" | while read -r l; do echo "$l"; done | grep . && bad=1
    done
}
check ir/support 'ir\.h|passes\.h|frontend\.h|codegen\.h|moe_rt\.h'
check ir 'passes\.h|frontend\.h|ast\.h|codegen\.h|moe_rt\.h'
check frontend 'passes\.h|codegen\.h|moe_rt\.h'
check passes 'frontend\.h|ast\.h|codegen\.h|moe_rt\.h'
check codegen 'frontend\.h|ast\.h|passes\.h|moe_rt\.h'
check runtime 'ir\.h|passes\.h|frontend\.h|codegen\.h|(support/)?(arena|vec|intern|str|diag)\.h'
for f in $(git grep -lE '#include <hwloc' -- '*.c' '*.h'); do
    case $f in passes/topology.c | runtime/team.c) ;; *) complain "$f: includes hwloc" ;; esac
done
for f in $(git grep -lE '#include <mpi' -- '*.c' '*.h'); do
    [ "$f" = runtime/comm_mpi.c ] || complain "$f: includes mpi.h"
done
exit $bad
