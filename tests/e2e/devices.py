"""One source, every mesh: the GShard language model on 1 to 8 devices takes the same training steps."""
import os
import shutil

import numpy as np
from _moe import ROOT, TMP, build, main, run, safetensors, sh, steps, text_file

SIZES = ["L=4", "B=8", "S=16", "M=32", "N=4", "V=128", "G=8", "E=8", "P=16"]
MESHES = ["data=1,expert=1", "data=1,expert=2", "data=2,expert=1", "data=2,expert=2", "data=2,expert=4",
          "data=1,expert=8", "data=8,expert=1"]
STEPS = 20


def train(mesh, n, tag, *options, env=None):
    """Progress lines and the folder of the checkpoint."""
    folder = os.path.join(TMP, f"{tag}-{mesh}")
    argv = [build("gshard_lm.moe", mesh, SIZES), "train", "--data", text_file(), "--seed=3", "--save", folder, *options]
    _, out, _ = sh([*argv, f"--steps={n}"], env=env)
    return steps(out), folder


def same_bytes(a, b):
    for name in ("model.safetensors", "states.safetensors"):
        with open(os.path.join(a, name), "rb") as x, open(os.path.join(b, name), "rb") as y:
            assert x.read() == y.read(), (a, b, name)


def test_gradients_of_step_1():
    """The first moment after one step is a tenth of the clipped gradient."""
    oracle, folder = train(MESHES[0], 1, "grad")
    want = safetensors(os.path.join(folder, "states.safetensors"))
    for mesh in MESHES[1:]:
        found, folder = train(mesh, 1, "grad")
        assert abs(found[1]["loss"] / oracle[1]["loss"] - 1) < 1e-6, (mesh, found[1], oracle[1])
        state = safetensors(os.path.join(folder, "states.safetensors"))
        for path, w in want.items():
            if path.endswith(".m"):
                error = np.linalg.norm(state[path] - w) / np.linalg.norm(w)
                assert error < 1e-6, (mesh, path, error)


def test_losses_over_20_steps():
    oracle, _ = train(MESHES[0], STEPS, "loss")
    for mesh in MESHES[1:]:
        found, _ = train(mesh, STEPS, "loss")
        worst = max(abs(found[i]["loss"] / oracle[i]["loss"] - 1) for i in range(1, STEPS + 1))
        assert worst < 1e-5, (mesh, worst)


def routing_model():
    """The example, reporting the gates of the three likeliest experts of each token and which they are."""
    source = open(os.path.join(ROOT, "examples", "gshard_lm.moe")).read()
    watched = source.replace("    combine, dispatch", """    dim Top = 3
    gate, choice = top_k(gates, E, Top)
    metric gate = gate
    metric choice = f32(choice)
    combine, dispatch""")
    assert watched != source
    path = os.path.join(TMP, "routing.moe")
    with open(path, "w") as f:
        f.write(watched)
    return path


def test_routing_after_20_steps():
    """Every mesh sends every token to the same experts; a difference is allowed only where two gates are within 1e-6."""
    text = np.random.default_rng(5).integers(32, 127, (8, 17)).astype(np.int32)

    def routes(mesh):
        _, folder = train(mesh, STEPS, "loss")
        got = run(build(routing_model(), mesh, SIZES), "loss", {"text": text}, "--weights", folder)
        name = next(k for k in got if k.endswith("choice"))
        return got[name], got[name[:-len("choice")] + "gate"]

    want, gates = routes(MESHES[0])
    for mesh in MESHES[1:]:
        found, _ = routes(mesh)
        for at in np.argwhere((found != want)[..., :2]):
            row = gates[tuple(at[:-1])]
            margin = abs(row[at[-1]] - row[at[-1] + 1])
            print(f"{mesh}: choice {at} differs, margin {margin:.2g}")
            assert margin < 1e-6, (mesh, at, row)


def test_two_runs_are_equal_to_the_bit():
    _, first = train("data=2,expert=2", 5, "first")
    _, again = train("data=2,expert=2", 5, "again")
    same_bytes(first, again)


def test_random_delays_change_nothing():
    _, quiet = train("data=2,expert=4", 3, "quiet")
    for seed in (1, 2):
        _, chaos = train("data=2,expert=4", 3, f"chaos{seed}", env={"MOE_CHAOS": str(seed)})
        same_bytes(quiet, chaos)


def test_resume_continues_to_the_bit():
    mesh, lm = "data=2,expert=2", build("gshard_lm.moe", "data=2,expert=2", SIZES)
    _, whole = train(mesh, STEPS, "whole")
    half = os.path.join(TMP, "half")
    sh([lm, "train", "--data", text_file(), "--seed=3", f"--steps={STEPS}", "--stop-at=10", "--save", half])
    sh([lm, "train", "--data", text_file(), "--resume", half, "--save", os.path.join(TMP, "rest")])
    same_bytes(whole, os.path.join(TMP, "rest"))


def test_resume_on_other_devices():
    half = os.path.join(TMP, "half")
    assert os.path.isdir(half)
    other = build("gshard_lm.moe", "data=1,expert=2", SIZES)
    _, out, _ = sh([other, "train", "--data", text_file(), "--resume", half])
    oracle, _ = train("data=2,expert=2", STEPS, "oracle")
    found = steps(out)
    worst = max(abs(found[i]["loss"] / oracle[i]["loss"] - 1) for i in range(11, STEPS + 1))
    assert worst < 1e-5, worst
    shutil.rmtree(half)


main()
