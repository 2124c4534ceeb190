"""Words of `train`: what `ema` keeps, and who reads it."""
import json
import os

import numpy as np
from _moe import ROOT, TMP, build, main, safetensors, sh, steps, text_file

SIZES = ["B=8", "S=16", "M=16", "N=2", "V=128", "G=8", "E=4", "L=4"]
DECAY = 0.75


def model():
    text = open(os.path.join(ROOT, "examples", "gshard_lm.moe")).read()
    path = os.path.join(TMP, "mean.moe")
    with open(path, "w") as f:
        f.write(text.replace("clip: 1.0)", f"clip: 1.0) ema {DECAY}"))
    return build(path, "data=2,expert=2", SIZES)


def train(n):
    folder = os.path.join(TMP, f"mean{n}")
    sh([model(), "train", "--data", text_file(), "--seed=4", "--steps=4", f"--stop-at={n}", "--save", folder])
    return folder


def test_running_mean():
    """m = decay m + (1 - decay) p over the steps, from the initial value on."""
    start = os.path.join(TMP, "start")
    tokens = os.path.join(TMP, "tokens.npy")
    np.save(tokens, np.zeros((8, 17), np.int32))
    sh([model(), "run", "loss", "--seed=4", "--in", f"text={tokens}", "--out", start + "-out", "--save", start])
    mean = {k: v.astype(np.float64) for k, v in safetensors(start + "/model.safetensors").items()}
    for n in range(1, 5):
        for k, p in safetensors(train(n) + "/model.safetensors").items():
            mean[k] = DECAY * mean[k] + (1 - DECAY) * p
    found = safetensors(train(4) + "/states.safetensors")
    for k, want in mean.items():
        got = found[f"ema.{k.replace('.weight', '.w')}.mean"]
        assert np.allclose(got, want, rtol=1e-5, atol=1e-7), k


def test_evaluation_with_the_mean():
    """--ema is what the same numbers give as parameters."""
    folder, plain = train(4), os.path.join(TMP, "plain")
    os.makedirs(plain, exist_ok=True)
    means = safetensors(folder + "/states.safetensors")
    with open(folder + "/model.safetensors", "rb") as f:
        data = bytearray(f.read())
    n = int.from_bytes(data[:8], "little")
    for k, v in json.loads(data[8:8 + n]).items():
        if k != "__metadata__":
            a, b = (8 + n + x for x in v["data_offsets"])
            data[a:b] = means[f"ema.{k.replace('.weight', '.w')}.mean"].tobytes()
    with open(plain + ".safetensors", "wb") as f:
        f.write(data)

    def evaluate(*options):
        return sh([model(), "eval", "--data", text_file(), *options])[1].splitlines()[-1].split()

    want, got = evaluate("--weights", plain + ".safetensors"), evaluate("--weights", folder, "--ema")
    assert want == got and got != evaluate("--weights", folder)
    code, _, err = sh([model(), "eval", "--data", text_file(), "--weights", plain, "--ema"], ok=False)
    assert code == 1, err
    other = build("gshard_lm.moe", None, SIZES)
    saved = os.path.join(TMP, "without")
    sh([other, "train", "--data", text_file(), "--steps=1", "--save", saved])
    code, _, err = sh([other, "eval", "--data", text_file(), "--weights", saved, "--ema"], ok=False)
    assert code == 1 and "no running means" in err, err


main()
