"""The GShard language model under sanitizers, and the same bits whatever the threads' timing.

The sanitized compilers are what `make check-asan check-tsan` builds; where they are missing, their tests are not there.
"""
import os
import re
import subprocess

from _moe import BUILD, ROOT, TMP, build, main, text_file

SIZES = ["L=2", "B=8", "S=16", "P=32", "M=16", "N=2", "G=8", "E=4"]
MESH = "data=2,expert=4"


def quiet(argv, **env):
    """Runs; nothing may be said by a sanitizer. Returns stdout without speeds."""
    r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=600, env={
        **os.environ, "ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "exitcode=66 halt_on_error=1", **env})
    err = r.stderr.decode(errors="replace")
    assert r.returncode == 0 and "Sanitizer" not in err and "runtime error" not in err, (argv, r.returncode, err[-6000:])
    return re.sub(rb" tokens/s \d+", b"", r.stdout)


def lm(variant):
    out = os.path.join(TMP, "lm-" + variant)
    model = os.path.join(ROOT, "examples", "gshard_lm.moe")
    argv = [os.path.join(BUILD + "-" + variant, "moecc"), model, "-o", out, f"--mesh={MESH}"]
    quiet(argv + [x for d in SIZES for x in ("-D", d)])
    return out


def work(binary, name):
    """Trains, continues, evaluates, generates, with one and with two threads a device."""
    ckpt, more, data = os.path.join(TMP, name), os.path.join(TMP, name + "-more"), text_file(size=20000)
    quiet([binary, "train", "--data", data, "--steps=2", "--workers=1", "--save", ckpt])
    quiet([binary, "train", "--data", data, "--steps=3", "--workers=2", "--resume", ckpt, "--save", more])
    quiet([binary, "eval", "--data", data, "--weights", more])
    quiet([binary, "generate", "--weights", more, "--prompt", "And", "--max-tokens=4"])


def asan_clean():
    work(lm("asan"), "asan")


def tsan_clean():
    work(lm("tsan"), "tsan")


if os.path.exists(BUILD + "-asan/moecc"):
    test_addresses_and_undefined_behaviour = asan_clean
if os.path.exists(BUILD + "-tsan/moecc"):
    test_races = tsan_clean


def test_chaos_changes_no_bit():
    """MOE_CHAOS delays threads at random around collectives."""
    binary = build("gshard_lm.moe", MESH, SIZES)

    def run(name, **env):
        ckpt = os.path.join(TMP, "chaos-" + name)
        out = quiet([binary, "train", "--data", text_file(), "--steps=4", "--workers=2", "--save", ckpt], **env)
        return out, *(open(os.path.join(ckpt, f), "rb").read() for f in ("model.safetensors", "states.safetensors"))

    want = run("none")
    for seed in "123":
        assert run(seed, MOE_CHAOS=seed) == want, seed


main()
