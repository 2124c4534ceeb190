"""After every pass, on 1, 2, 4 and 8 virtual devices, the interpreter gives each example's first result."""
import glob
import os
import re

from _moe import MOECC, ROOT, main, sh

SPLITS = [(1, 1), (1, 2), (2, 2), (2, 4)]


def check(path):
    text = open(path).read()
    first = text.splitlines()[0]
    assert first.startswith("// test: "), f"{path} does not open with a test line"
    axes = [a.split(":")[0].strip() for a in re.search(r"^mesh \[(.*?)\]", text, re.M).group(1).split(",")]
    for split in SPLITS:
        mesh = ",".join(f"{a}={n}" for a, n in zip(axes, split))
        _, _, err = sh([MOECC, path, *first[len("// test: "):].split(), f"--mesh={mesh}", "--check-passes", "--verify-each"])
        passes = [line.split()[0] for line in err.splitlines() if line.endswith("same results")]
        assert passes[0] == "lower" and passes[-1] == "plan", err


for _path in sorted(glob.glob(os.path.join(ROOT, "examples", "*.moe"))):
    globals()["test_" + os.path.basename(_path)[:-4]] = lambda p=_path: check(p)
main()
