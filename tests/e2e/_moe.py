"""Drives moecc and its binaries from outside: compile, run an entry, train, read what was saved.

Every test file is a program: functions named test_* run in order, and `main()` prints "N passed, N failed" last.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback

import numpy as np

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
MOECC = os.path.join(BUILD, "moecc")
TMP = tempfile.mkdtemp(prefix="moecc-e2e-")


def sh(argv, ok=True, env=None, timeout=600):
    """Runs a command; `ok`: it must exit with 0. Returns (exit status, stdout, stderr)."""
    r = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=timeout,
                       env={**os.environ, **(env or {})})
    if ok and r.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, argv))}\nexit {r.returncode}\n{r.stdout[-2000:]}\n{r.stderr[-4000:]}")
    return r.returncode, r.stdout, r.stderr


_built = {}


def build(model, mesh=None, defs=(), options=()):
    """Path of the binary of a model of examples/ (or any path); built once for the same arguments."""
    key = (model, mesh, tuple(defs), tuple(options))
    if key not in _built:
        out = os.path.join(TMP, f"model{len(_built)}")
        path = model if os.path.isabs(model) else os.path.join(ROOT, "examples", model)
        argv = [MOECC, path, "-o", out, *options]
        argv += [f"--mesh={mesh}"] if mesh else []
        for d in defs:
            argv += ["-D", d]
        sh(argv)
        _built[key] = out
    return _built[key]


def run(binary, entry, inputs, *options):
    """Runs an entry on numpy arrays; returns its results by name."""
    work = tempfile.mkdtemp(dir=TMP)
    argv = [binary, "run", entry]
    for name, x in inputs.items():
        np.save(os.path.join(work, name + ".npy"), np.ascontiguousarray(x))
        argv += ["--in", f"{name}={work}/{name}.npy"]
    sh(argv + ["--out", work + "/out", *options])
    return {f[:-4]: np.load(os.path.join(work, "out", f)) for f in sorted(os.listdir(work + "/out"))}


def steps(stdout):
    """The progress lines of a training run: {step: {name: value}}."""
    found = {}
    for line in stdout.splitlines():
        m = re.match(r"step (\d+) (.*)", line)
        if m:
            words = m.group(2).split()
            found[int(m.group(1))] = {k: float(v) for k, v in zip(words[::2], words[1::2]) if _number(v)}
    return found


def _number(s):
    try:
        float(s)
        return True
    except ValueError:
        return False


def safetensors(path):
    """All tensors of a .safetensors file."""
    with open(path, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(n))
        data = f.read()
    kinds = {"F32": np.float32, "I32": np.int32, "BOOL": np.bool_}
    return {k: np.frombuffer(data[v["data_offsets"][0]:v["data_offsets"][1]], kinds[v["dtype"]]).reshape(v["shape"])
            for k, v in header.items() if k != "__metadata__"}


def text_file(name="text.txt", size=200_000):
    """Deterministic English-like bytes: words of a fixed vocabulary drawn by a fixed generator."""
    path = os.path.join(TMP, name)
    if not os.path.exists(path):
        words = "in the beginning was word and light of day night earth water upon face said let there be good".split()
        rng = np.random.default_rng(1)
        text = " ".join(words[i] for i in rng.integers(0, len(words), size // 4))
        with open(path, "w") as f:
            f.write(text[:size])
    return path


def main():
    tests = [(k, v) for k, v in sys.modules["__main__"].__dict__.items() if k.startswith("test_")]
    failed = 0
    for name, test in tests:
        try:
            test()
            print(f"ok {name}", flush=True)
        except Exception:  # a failing test must not hide the others
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
    subprocess.run(["rm", "-rf", TMP], check=False)
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(failed != 0)
