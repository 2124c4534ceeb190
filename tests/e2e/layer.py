"""One GShard layer: the binary on 1 to 8 devices gives what the interpreter gives, and moves what the paper moves."""
import os
import re

import numpy as np
from _moe import MOECC, ROOT, TMP, build, main, run, sh

LM = os.path.join(ROOT, "examples", "gshard_lm.moe")
LAYER = os.path.join(ROOT, "examples", "gshard_layer.moe")
MESHES = ["data=1,expert=1", "data=1,expert=2", "data=2,expert=2", "data=2,expert=4"]
X = np.random.default_rng(0).normal(size=(8, 64, 64)).astype(np.float32)


def interpret(path, *options):
    np.save(os.path.join(TMP, "x.npy"), X)
    out = os.path.join(TMP, "interpreted")
    sh([MOECC, "run", path, "forward", "--in", f"x={TMP}/x.npy", "--out", out, *options])
    return np.load(os.path.join(out, "forward.npy"))


def test_binary_equals_interpreter():
    want = interpret(LAYER, "--f64")
    for mesh in MESHES:
        got = run(build("gshard_layer.moe", mesh), "forward", {"x": X})["forward"]
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        assert error < 1e-6, (mesh, error)


def test_a_dumped_stage_can_be_executed():
    want = interpret(LAYER, "--f64")
    for stage in ("ir", "sharded", "local", "placed", "planned"):
        path = os.path.join(TMP, stage + ".ir")
        sh([MOECC, LAYER, f"--emit={stage}", "--mesh", "data=2,expert=2", "-o", path])
        got = interpret(path, "--f64")
        assert np.max(np.abs(got - want)) < 1e-12, stage


def test_two_all_to_alls_forward_and_two_more_backward():
    """In the language model, that is: the layer's own input wants no gradient."""
    for mesh in MESHES[1:]:
        _, plan, _ = sh([MOECC, LM, "--mesh", mesh, "--plan"])
        for function, count in (("entry loss", 2), ("train loss", 4)):
            part = plan[plan.index(function + ", one call"):].split("\n\n")[0]
            assert len(re.findall(r"all_to_all", part)) == count, (mesh, part)
        assert "all_gather" not in plan[plan.index("train loss, one call"):], plan
        _, plan, _ = sh([MOECC, LAYER, "--mesh", mesh, "--plan"])
        forward = plan[plan.index("entry forward, one call"):].split("\n\n")[0]
        moved = [(int(n), k) for n, k in re.findall(r"^ +(\d+) +\d+  (\w+) ", forward, re.M)]
        assert all(k == "all_to_all" or n < 200 for n, k in moved), moved   # the rest: counts for a metric


def test_code_does_not_grow_with_devices_or_layers():
    sizes = {}
    for mesh, layers in (("data=2,expert=2", 4), ("data=128,expert=8", 4), ("data=2,expert=2", 96)):
        out = sh([MOECC, LM, "-D", "B=1024", "-D", "G=1024", "-D", f"L={layers}", "--mesh", mesh, "--emit=c"])[1]
        sizes[mesh, layers] = len(out)
    assert max(sizes.values()) < 1.2 * min(sizes.values()), sizes


main()
