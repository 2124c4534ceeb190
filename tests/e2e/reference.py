"""The GShard language model against an independent implementation (tests/oracle/gshard_jax.py made the fixture)."""
import json
import os

import numpy as np
from _moe import ROOT, TMP, build, main, safetensors, sh, steps

FIX = os.path.join(ROOT, "tests/oracle/fixtures")
SIZES = json.load(open(os.path.join(FIX, "gshard_sizes.json")))
EXPECTED = safetensors(os.path.join(FIX, "gshard_expected.safetensors"))
MESHES = ["data=1,expert=1", "data=2,expert=2", "data=1,expert=2"]


def train(mesh, n):
    defs = [f"{k}={v}" for k, v in SIZES.items() if len(k) == 1] + ["P=16", "random_routing=false"]
    lm = build("gshard_lm.moe", mesh, defs)
    ckpt = os.path.join(TMP, f"ref-{mesh}-{n}")
    _, out, _ = sh([lm, "train", "--data", os.path.join(FIX, "gshard_text.txt"), "--weights",
                    os.path.join(FIX, "gshard_weights.safetensors"), "--steps", n, f"--seed={SIZES['SEED']}", "--save", ckpt])
    return steps(out), safetensors(os.path.join(ckpt, "states.safetensors"))


def test_losses_over_20_steps():
    for mesh in MESHES:
        found, _ = train(mesh, SIZES["STEPS"])
        losses = np.array([found[i + 1]["loss"] for i in range(SIZES["STEPS"])])
        worst = np.max(np.abs(losses / EXPECTED["losses"] - 1))
        assert worst < 1e-4, (mesh, worst, losses)


def test_gradients_of_step_1():
    """After one step AdamW's first moment is 0.1 times the clipped gradient."""
    grads = {k[5:]: v for k, v in EXPECTED.items() if k.startswith("grad.")}
    norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in grads.values()))
    for mesh in MESHES:
        _, state = train(mesh, 1)
        for path, g in grads.items():
            m = state["opt." + path.replace(".weight", ".w") + ".m"]
            want = 0.1 * g * min(1.0, 1.0 / norm)
            error = np.linalg.norm(m - want) / np.linalg.norm(want)
            assert error < 1e-5, (mesh, path, error)


main()
