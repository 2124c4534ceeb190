#!/usr/bin/env python3
"""make bench: a training step, the MoE layer alone and the compiler, each as a share of what this machine can do.

Everything is measured in one run: ROUNDS times through all cases, the machine's own matrix product rate first in each
round; medians over the rounds. PEER=jax adds JAX in the same rounds, and ratios. See README.md.
"""
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
MOECC = os.path.join(BUILD, "moecc")
PEER = os.environ.get("PEER", "")
PEER_PYTHON = os.environ.get("PEER_PYTHON", os.path.join(ROOT, ".venv-bench", "bin", "python3"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
ONLY = os.environ.get("ONLY", "")  # a regular expression: the cases to run
LIMIT_ALONE, LIMIT_WITH_CC = 0.5, 8.0  # seconds of a compilation

LM = dict(L=2, B=8, S=128, M=128, N=4, V=256, E=8)  # as in examples/gshard_lm.moe
LAYER = dict(G=8, S=1024, M=512, H=2048)            # as in moe_layer.moe


# ---- operations ----------------------------------------------------------------------------------------------------
def lm_flops(kept):
    """A step: forward and twice that for the backward. Experts count by the (token, choice) pairs that they compute."""
    m, s, h = LM["M"], LM["S"], 4 * LM["M"]
    attention = 4 * m * m + 2 * s * m
    dense, sparse = 2 * m * h, m * LM["E"] + 2 * kept * 2 * m * h
    token = LM["L"] * attention + (LM["L"] - LM["L"] // 2) * dense + LM["L"] // 2 * sparse + m * LM["V"]
    return 3 * 2 * token * LM["B"] * LM["S"]


def layer_flops(kept, experts, train):
    m, h = LAYER["M"], LAYER["H"]
    token = m * experts + 2 * kept * 2 * m * h
    return (3 if train else 1) * 2 * token * LAYER["G"] * LAYER["S"]


# ---- running ----------------------------------------------------------------------------------------------------------
def out(argv, **env):
    r = subprocess.run([str(a) for a in argv], capture_output=True, text=True, env={**os.environ, **env})
    if r.returncode:
        sys.exit(f"{' '.join(map(str, argv))}\nexit {r.returncode}\n{r.stdout}{r.stderr}")
    return r.stdout


def seconds(argv):
    began = time.perf_counter()
    out(argv)
    return time.perf_counter() - began


def call_times(text):
    """What `bench` prints: median ms, processor ms, the share of (token, choice) pairs kept."""
    median, processor = (float(x) for x in re.search(r"median ([\d.]+) .*processor ([\d.]+)", text).groups())
    kept = re.search(r"mean \S*kept ([\d.]+)", text)
    return median, processor, float(kept.group(1)) if kept else 1.0


class Case:
    """One row: a binary's call, perhaps a peer's, and the operations that it needs."""

    def __init__(self, name, argv, flops, tokens, peer):
        self.name, self.argv, self.flops, self.tokens, self.peer = name, argv, flops, tokens, peer
        self.mine, self.kept, self.theirs = [], 1.0, {}

    def measure(self):
        median, processor, self.kept = call_times(out(self.argv))
        self.mine.append((median, processor))
        for form in ("onehot", "gather") if PEER == "jax" else ():
            argv = [PEER_PYTHON, os.path.join(HERE, "peer_jax.py"), form, *self.peer]
            self.theirs.setdefault(form, []).append(call_times(out(argv))[:2])


def cases(work):
    found = []
    for devices, mesh in ((1, "data=1,expert=1"), (2, "data=1,expert=2"), (4, "data=2,expert=2")):
        binary = f"{work}/lm{devices}"
        out([MOECC, f"{ROOT}/examples/gshard_lm.moe", "--mesh", mesh, "-o", binary])
        found.append(Case(f"LM step, {devices} devices", [binary, "bench", "loss", "--train", "--repeat", 20], lm_flops,
                          LM["B"] * LM["S"], ["lm", devices, 0, "train", 10]))
    for experts in (8, 64):
        for devices in (1, 8):
            binary = f"{work}/layer{experts}.{devices}"
            out([MOECC, f"{HERE}/moe_layer.moe", "--mesh", f"expert={devices}", "-D", f"E={experts}", "-o", binary])
            for entry, train in (("forward", False), ("loss", True)):
                found.append(Case(
                    f"MoE layer {'training' if train else 'forward'}, E {experts}, {devices} devices",
                    [binary, "bench", entry, "--repeat", 3] + ["--train"] * train,
                    lambda kept, e=experts, t=train: layer_flops(kept, e, t), LAYER["G"] * LAYER["S"],
                    ["layer", devices, experts, "train" if train else "forward", 3]))
    return found


def compilations(work):
    big = ["--mesh", "data=32,expert=32", "-D", "B=1024", "-D", "G=1024", "-D", "E=32"]
    example = [MOECC, f"{ROOT}/examples/gshard_lm.moe"]
    return [(f"compile, {n} devices, {how}", example + mesh + options, limit)
            for n, mesh in (("4", []), ("1,024", big))
            for how, options, limit in (("moecc alone", ["--emit=c", "-o", f"{work}/x.c"], LIMIT_ALONE),
                                        ("with cc", ["-o", f"{work}/x"], LIMIT_WITH_CC))]


# ---- the table ----------------------------------------------------------------------------------------------------------
def processor_name():
    with open("/proc/cpuinfo") as f:
        names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {len(os.sched_getaffinity(0))} cores"


def print_cases(found, peak, rate):
    forms = [f"jax {form} / moecc" for form in ("onehot", "gather")] if PEER == "jax" else []
    head = ["", "ms", "tokens/s", "share of peak", "processor ms", "share of its peak", *forms]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for c in found:
        ms, processor = (statistics.median(x) for x in zip(*c.mine))
        flops = c.flops(c.kept)
        row = [c.name, f"{ms:.1f}", f"{c.tokens / ms * 1e3:,.0f}", f"{flops / ms / 1e6 / peak:.0%}", f"{processor:.1f}",
               f"{flops / processor / 1e6 / rate:.0%}"]
        for theirs in c.theirs.values():  # by the clock, and by processor time
            row += ["{:.2f} ({:.2f})".format(*(statistics.median(t[k] / m[k] for t, m in zip(theirs, c.mine))
                                               for k in (0, 1)))]
        print("| " + " | ".join(row) + " |")


def main():
    work = tempfile.mkdtemp(prefix="moecc-bench-")
    try:
        out([os.environ.get("CC", "cc"), "-O2", f"{HERE}/peak.c", "-o", f"{work}/peak", "-ldnnl", "-fopenmp", "-pthread"])
        found, compiled = cases(work), [(*c, []) for c in compilations(work)]
        peaks = []
        for n in range(ROUNDS):
            for c in (c for c in found if re.search(ONLY, c.name)):
                print(f"round {n + 1} of {ROUNDS}, load {os.getloadavg()[0]:.1f}: {c.name}", file=sys.stderr)
                peaks.append([float(x) for x in out([f"{work}/peak"]).split()])
                c.measure()
            for _, argv, _, took in compiled:
                took.append(seconds(argv))
    finally:
        shutil.rmtree(work)
    peak, rate = (statistics.median(x) for x in zip(*peaks))
    print(f"{processor_name()}; peak {peak:.0f} GFLOP/s, {rate:.0f} GFLOP a second of processor time; "
          f"load {os.getloadavg()[0]:.1f}\n")
    print_cases([c for c in found if c.mine], peak, rate)
    print("\n| | seconds | limit |\n|---|---|---|")
    for name, _, limit, took in compiled:
        print(f"| {name} | {statistics.median(took):.2f} | {limit:.1f} |")
    sys.exit(any(statistics.median(took) > limit for *_, limit, took in compiled))


if __name__ == "__main__":
    main()
