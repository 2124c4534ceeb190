"""Whatever is typed, read or found on the disk: a sentence and exit code 1 (input) or 2 (usage), and nothing half-written."""
import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time

import numpy as np
from _moe import MOECC, TMP, build, main, safetensors, sh, text_file

LAYER = """import nn
mesh [data: 2]
dim B = 4, M = 8
entry f(x: f32[B@data, M]) -> f32[B@data, M] {
    param w: f32[M] = normal(0.02)
    return x * w
}
"""
MODEL = """mesh [data: 2]
dim V = 256, M = 4, B = 2, S = 8
fn scores(tokens: i32[B@data, S]) -> f32[B@data, S, V] {
    param emb: f32[V, M] = normal(0.02)
    return einsum(emb[V: tokens], emb -> [B, S, V])
}
entry loss(text: i32[B@data, S + 1]) -> f32[] {
    z = scores(text[S+1: 0..S]) in ""
    d = z - f32(text[S+1: 1..S+1]) / 256.0
    return mean(d * d)
}
entry logits(tokens: i32[B, S], pos: i32[B]) -> f32[B, S, V] {
    z = scores(tokens) in ""
    return z + 0.0 * f32(pos)
}
train loss with adamw(lr: 1e-3)
generate with logits at (B: 1, S: 1)
"""


def folder():
    return tempfile.mkdtemp(dir=TMP)


def write(path, text):
    with open(path, "wb" if isinstance(text, bytes) else "w") as f:
        f.write(text)
    return path


def refused(argv, code, *words, env=None, cwd=None, stdout=subprocess.PIPE):
    """The command says these words on stderr and exits with this code (or one of them); nothing appears in its folder."""
    before = sorted(os.listdir(cwd)) if cwd else None
    r = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, timeout=120, cwd=cwd,
                       env={**os.environ, **(env or {})})
    err = r.stderr.decode(errors="replace")
    assert r.returncode in (code if isinstance(code, tuple) else (code,)), (argv, r.returncode, err[-2000:])
    for w in words:
        assert w in err, (argv, w, err[-2000:])
    assert len(err) < 4000 and "Sanitizer" not in err and "runtime error" not in err, err[:4000]
    if cwd:
        assert sorted(os.listdir(cwd)) == before, (argv, sorted(os.listdir(cwd)), before)


def layer():
    return write(os.path.join(folder(), "ok.moe"), LAYER)


_model = []


def model():
    if not _model:
        _model.append(write(os.path.join(folder(), "model.moe"), MODEL))
    return build(_model[0])


def trained():
    ckpt = os.path.join(TMP, "hostile-ckpt")
    if not os.path.isdir(ckpt):
        sh([model(), "train", "--data", text_file(), "--steps=2", "--save", ckpt])
    return ckpt


# ---- the compiler ----------------------------------------------------------------------------------------------------


def test_command_lines():
    ok = layer()
    for argv, words in [
        ([], ["moecc model.moe -o model"]),
        (["--bogus"], ["unknown option", "'--bogus'", "moecc --help"]),
        (["--mehs=a=1"], ["did you mean --mesh?"]),
        (["--"], ["unknown option"]),
        ([ok], ["no output: give -o FILE, --emit=STAGE or --plan"]),
        ([ok, ok], ["one input at a time"]),
        ([ok, "-o"], ["a file name is missing after '-o'"]),
        ([ok, "-D"], ["expected NAME=VALUE"]),
        ([ok, "-D", "B"], ["expected NAME=VALUE"]),
        ([ok, "--emit="], ["no such stage"]),
        ([ok, "--emit=%s%n"], ["no such stage for --emit: '%s%n'"]),
        ([ok, "--plan=xml"], ["no such form for --plan (text, json): 'xml'"]),
        ([ok, "--target=cuda9"], ["no such target: 'cuda9'"]),
        ([ok, "--dump-after=x"], ["no such pass"]),
        ([ok, "--stop-after=all"], ["no such pass"]),
        ([ok, "--plan", "--emit=ir"], ["--stop-after, --explain-sharding and --show at a time"]),
        ([ok, "--plan", "--stop-after=simplify"], ["--stop-after, --explain-sharding and --show at a time"]),
        ([ok, "--plan", "--show=x"], ["--explain-sharding and --show at a time"]),
        ([ok, "--max-memory=1.5XiB"], ["expected a number of bytes such as 4096 or 1.5GiB, not '1.5XiB'"]),
        ([ok, "--max-bytes=-1"], ["expected a number of bytes"]),
        ([ok, "--max-bytes=9e99"], ["expected a number of bytes"]),
        ([ok, "--forbid="], ["no such collective: ''"]),
        ([ok, "--forbid=all_gather,%n"], ["no such collective: '%n'"]),
        (["diff", ok], ["a second input is missing after 'diff FILE'"]),
        (["diff", ok, ok, ok], ["one input at a time"]),
        ([ok, "-o", ok], ["the output is the input"]),
        ([ok, "--emit=ir", "-o", os.path.dirname(ok) + "/./ok.moe"], ["the output is the input"]),
        ([ok, "--help=1"], ["unwanted value"]),
        ([ok, "-" + "x" * 100], ["unknown option"]),
    ]:
        refused([MOECC, *argv], 2, *words)
    assert open(ok).read() == LAYER


def test_values_of_options():
    ok = layer()
    for options, words in [
        (["-DB="], ["-D B=: not a number"]),
        (["-D=3"], ["declares no such dim"]),
        (["-DQ=1"], ["-D Q: the file declares no such dim, const or dtype"]),
        (["-DB=0"], ["a size is at least 1"]),
        (["-DB=-1"], ["a size is at least 1"]),
        (["-DB=99999999999999999999"], ["must be an integer"]),
        (["-DB=1e400"], []),
        (["-DB=nan"], []),
        (['-DB=x"y'], ["not a number"]),
        (["-DB=1000000000000", "-DM=1000000000000"], ["more than 2^48 elements"]),
        (["--mesh=="], ["expected axis=size"]),
        (["--mesh=data"], ["expected axis=size"]),
        (["--mesh=data=2,"], ["expected axis=size"]),
        (["--mesh=data=0"], ["a mesh has from 1 to"]),
        (["--mesh=data=-1"], ["expected axis=size"]),
        (["--mesh=data=99999999999"], ["a mesh has from 1 to"]),
        (["--mesh=data=2,data=2"], ["two axes"]),
        (["--mesh=nope=2"], ["has no axis `nope`"]),
        (["--mesh=" + "a" * 5000 + "=2"], ["--mesh"]),
        (["--topology="], ["neither an hwloc XML file nor a synthetic description"]),
        (["--topology=/"], ["neither"]),
        (["--topology=/dev/zero"], ["neither"]),
        (["--topology=" + ok], ["neither"]),
        (["--topology=core:0"], ["neither"]),
        (["--topology=core:-1"], ["neither"]),
        (["--topology=pack:100000 core:100000 pu:1"], ["neither"]),
        (["--start-at=plan"], ["--start-at=plan needs a module at PLACED; this one is ANNOTATED"]),
    ]:
        refused([MOECC, ok, "--plan", *options], 1, *words)


def test_stages_that_were_read():
    work = folder()
    ok = layer()
    ir = os.path.join(work, "x.ir")
    sh([MOECC, ok, "--emit=planned", "-o", ir])
    refused([MOECC, ir, "--stop-after=propagate"], 1, "--stop-after=propagate needs a module at SHARDED; this one is PLANNED")
    refused([MOECC, ir, "--start-at=fuse"], 1, "--start-at=fuse needs a module at PLACED; this one is PLANNED")
    text = open(ir).read()
    for i in range(0, len(text), max(1, len(text) // 40)):  # cut between two functions it is a stage, too
        r = sh([MOECC, write(ir, text[:i]), "--emit=c"], ok=False)
        assert r[0] == 0 or (r[0] == 1 and "error:" in r[2] and len(r[2]) < 4000), (i, r)


def test_inputs_that_are_no_sources():
    work = folder()
    fifo = os.path.join(work, "fifo.moe")
    os.mkfifo(fifo)
    big = os.path.join(work, "big.moe")
    with open(big, "wb") as f:
        f.truncate(1 << 33)
    for path in ["/", work, "/dev/zero", fifo]:
        refused([MOECC, path, "--emit=ir"], 1, "not a regular file")
    refused([MOECC, os.path.join(work, "nope.moe"), "--emit=ir"], 1, "No such file or directory")
    refused([MOECC, "", "--emit=ir"], 1, "No such file or directory")
    refused([MOECC, "x" * 300, "--emit=ir"], 1, "File name too long")
    refused([MOECC, big, "--emit=ir"], 1, "big.moe")
    for bad in [b"", b"\0", b"\xff\xfe", b"(" * 100000, b"entry " * 100000, b"\n" * 1000000, b'"', b"/*"]:
        refused([MOECC, write(os.path.join(work, "bad.moe"), bad), "-o", "out"], 1, "error:", cwd=work)
        refused([MOECC, write(os.path.join(work, "bad.ir"), bad), "-o", "out"], 1, "error:", cwd=work)


def test_outputs_that_cannot_be():
    work, ok = folder(), layer()
    os.mkdir(os.path.join(work, "dir"))
    for what in ([], ["--emit=ir"], ["--plan"]):
        refused([MOECC, ok, *what, "-o", "dir"], 1, "Is a directory", cwd=work)
        refused([MOECC, ok, *what, "-o", "no/x"], 1, "No such file or directory", cwd=work)
        refused([MOECC, ok, *what, "-o", ""], 1, "cannot write", cwd=work)
        refused([MOECC, ok, *what, "-o", "a" * 300], 1, "File name too long", cwd=work)
    refused([MOECC, ok, "-o", "/dev/full"], 1, "/dev/full", cwd=work)
    refused([MOECC, ok, "--emit=ir", "-o", "/dev/full"], 1, "No space left", cwd=work)
    for what in (["--emit=ir"], ["--emit=c"], ["--emit=ast"], ["--plan"], ["--help"], ["--passes"], ["--version"]):
        with open("/dev/full", "w") as full:
            refused([MOECC, ok, *what], 1, "cannot write standard output: No space left", stdout=full)


def test_devices_and_links_stay_what_they_are():
    work, ok = folder(), layer()
    link, target = os.path.join(work, "link"), write(os.path.join(work, "target"), "x")
    os.symlink("target", link)
    sh([MOECC, ok, "--emit=ir", "-o", link])
    assert os.path.islink(link) and open(target).read().startswith("moecc-ir")
    fifo = os.path.join(work, "fifo")
    os.mkfifo(fifo)
    reader = subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE)
    sh([MOECC, ok, "--emit=ir", "-o", fifo])
    assert reader.communicate()[0].startswith(b"moecc-ir") and not os.path.isfile(fifo)
    refused([MOECC, ok, "-o", fifo], 1, "cannot make a program of", cwd=work)
    assert not os.path.isfile(fifo)


def test_compilers_that_fail():
    work, ok = folder(), layer()
    refused([MOECC, ok, "-o", "x"], 1, "cannot run the C compiler /nonexistent", cwd=work, env={"CC": "/nonexistent"})
    refused([MOECC, ok, "-o", "x"], 1, "the C compiler (false) cannot make", cwd=work, env={"CC": "false"})
    refused([MOECC, ok, "-o", "x"], 1, "cannot make the folder", cwd=work, env={"TMPDIR": "/nonexistent"})
    tmp = folder()
    killed = write(os.path.join(folder(), "cc"), "#!/bin/sh\nkill -9 $$\n")
    os.chmod(killed, 0o755)
    refused([MOECC, ok, "-o", "x"], 1, "ended by signal 9", cwd=work, env={"CC": killed, "TMPDIR": tmp})
    assert os.listdir(tmp) == []


def test_signals_leave_nothing():
    ok = layer()
    slow = write(os.path.join(folder(), "cc"), "#!/bin/sh\nsleep 3\n")
    os.chmod(slow, 0o755)
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        work, tmp = folder(), folder()
        p = subprocess.Popen([MOECC, ok, "-o", "x"], cwd=work, env={**os.environ, "CC": slow, "TMPDIR": tmp})
        for _ in range(200):
            if os.listdir(tmp) and os.listdir(work):
                break
            time.sleep(0.01)
        time.sleep(0.05)
        p.send_signal(sig)
        assert p.wait(10) == -sig
        assert os.listdir(work) == [] and os.listdir(tmp) == [], (sig, os.listdir(work), os.listdir(tmp))


NAMES = ["q\"uote", "a'b", "back\\slash", "new\nline", "tri??=graph??'", "star*)(x", "%s%n%d", " blank ", "-dash",
         "$(touch pwned)`touch pwned`;touch pwned", "\u00fc\u4e2d", "ctl\x01\x7f", "#include <x>", "a" * 200]


def test_hostile_file_names():
    for name in NAMES:
        work = folder()
        path = write(os.path.join(work, name + ".moe"), LAYER)
        out = os.path.join(work, name + ".out")
        sh([MOECC, path, "-o", out])
        _, info, _ = sh([out, "info"])
        assert "mesh [data: 2]" in info
        assert sorted(os.listdir(work)) == sorted([name + ".moe", name + ".out"])
        ir = os.path.join(work, "x.ir")  # the name is in the stage's text too
        sh([MOECC, path, "--emit=planned", "-o", ir])
        sh([MOECC, ir, "--emit=c", "-o", os.path.join(work, "x.c")])
    for name in ["*", "/"]:
        work = os.path.join(folder(), "dir" + name)
        os.mkdir(work)
        sh([MOECC, write(os.path.join(work, "x.moe"), LAYER), "-o", os.path.join(work, "out")])


def test_hostile_paths_of_parameters():
    """A path is any text: in C strings and comments, in safetensors, and in what `info` prints."""
    words = ['q\\"uote', "a'b", "back\\\\slash", "tri??/graph", "star*/x/*", "%s%n", "//", "#define if while", "\u00fc"]
    body, used = "", []
    for i, w in enumerate(words):
        r = sh([MOECC, write(os.path.join(folder(), "m.moe"), MODEL.replace(
            "    return einsum(emb", f'    scope "{w}" {{ param w: f32[M] = 0 }}\n    return w + einsum(emb'))
                , "--emit=ir"], ok=False)
        assert r[0] in (0, 1) and len(r[2]) < 4000, (w, r)
        used += [w] if r[0] == 0 else []
    for i, w in enumerate(used):
        body += f'    scope "{w}" {{ param w{i}: f32[B] = 1 }}\n    x = x * w{i}\n'
    src = "mesh [data: 2]\ndim B = 4\nentry f(x: f32[B@data]) -> f32[B@data] {\n" + body + "    return x\n}\n"
    path = write(os.path.join(folder(), "m.moe"), src)
    out = build(path)
    x = os.path.join(TMP, "x.npy")
    np.save(x, np.arange(4, dtype=np.float32))
    sh([out, "run", "f", "--in", "x=" + x, "--out", os.path.join(TMP, "o"), "--save", os.path.join(TMP, "paths.ckpt")])
    assert len(safetensors(os.path.join(TMP, "paths.ckpt", "model.safetensors"))) == len(used)
    sh([MOECC, path, "--plan=json", "-o", os.path.join(TMP, "p.json")])
    json.load(open(os.path.join(TMP, "p.json")))


# ---- the program -----------------------------------------------------------------------------------------------------


def test_command_lines_of_a_program():
    lm, data = model(), text_file()
    for argv, words in [
        ([], []),
        (["trian"], ["unknown command 'trian'", "did you mean 'train'?"]),
        (["train", "--bogus"], ["unknown option '--bogus'"]),
        (["train", "--stesp=1"], ["did you mean '--steps'?"]),
        (["train", "--steps"], ["a value must follow '--steps'"]),
        (["train", "--steps=0"], ["'0' is not an integer in range"]),
        (["train", "--steps=-1"], ["not an integer in range"]),
        (["train", "--steps=1e9"], ["not an integer in range"]),
        (["train", "--steps=99999999999999999999"], ["not an integer in range"]),
        (["train", "--time=5x"], ["is not a time"]),
        (["train", "--time=nan"], ["is not a time"]),
        (["train", "--seed=-1"], ["not an integer in range"]),
        (["train", "--workers=100000"], ["not an integer in range"]),
        (["generate", "--temperature=nan"], ["not a number in range"]),
        (["generate", "--prompt"], ["a value must follow"]),
        (["run", "loss", "extra"], ["unexpected argument"]),
        (["info", "--data=x"], ["unknown option"]),
    ]:
        refused([lm, *argv], 2, *words)
    for argv, words in [
        (["train"], ["train needs --data FILE"]),
        (["train", "nope", "--data", data], ["no training function is called 'nope'"]),
        (["eval"], ["--data"]),
        (["info", "--devices=3"], ["compiled for 2 devices"]),
        (["run"], ["expected the name of a function: loss, logits"]),
        (["run", "nope"], ["no function is called 'nope'; there are: "]),
        (["run", "loss"], ["--out"]),
        (["run", "loss", "--out=x"], ["needs --in text=FILE.npy"]),
        (["run", "loss", "--out=x", "--in=q"], ["expected NAME=FILE.npy"]),
        (["run", "loss", "--out=x", "--in=q=1"], ["has no argument 'q'"]),
        (["run", "loss", "--out=x", "--in=text=nope.npy"], ["nope.npy: No such file or directory"]),
    ]:
        refused([lm, *argv], 1, *words, cwd=folder())


def test_full_disks_of_a_program():
    for argv in (["info"], ["--help"], ["train", "--help"], ["train", "--data", text_file(), "--steps=1"],
                 ["eval", "--data", text_file(), "--weights", trained()],
                 ["generate", "--prompt", "x", "--max-tokens=2", "--weights", trained()]):
        with open("/dev/full", "w") as full:
            refused([model(), *argv], 1, "No space left", stdout=full)


def test_texts():
    work = folder()
    fifo = os.path.join(work, "fifo")
    os.mkfifo(fifo)
    for path, word in [(write(os.path.join(work, "empty"), ""), "empty"), (work, "not a regular file"),
                       ("/dev/zero", "not a regular file"), (fifo, "not a regular file"),
                       (os.path.join(work, "nope"), "No such file")]:
        refused([model(), "train", "--data", path], 1, word)
        refused([model(), "eval", "--weights", trained(), "--data", path], 1, word)
    tiny = write(os.path.join(work, "tiny"), "abc")
    refused([model(), "train", "--data", tiny, "--steps=1", "--save", os.path.join(work, "ck")], 1, "shorter than one row")
    refused([model(), "eval", "--weights", trained(), "--data", tiny], 1, "held-out")
    assert not os.path.exists(os.path.join(work, "ck"))
    sh([model(), "train", "--data", write(os.path.join(work, "bytes"), bytes(range(256)) * 4), "--steps=1"])


def damaged(files):
    """A copy of the trained checkpoint with some files replaced (None: removed)."""
    ckpt = os.path.join(folder(), "ck")
    shutil.copytree(trained(), ckpt)
    for name, content in files.items():
        path = os.path.join(ckpt, name)
        os.unlink(path)
        if content is not None:
            write(path, content)
    return ckpt


def test_checkpoints():
    names = ["model.safetensors", "states.safetensors", "meta.json"]
    read = {n: open(os.path.join(trained(), n), "rb").read() for n in names}
    for n in names:
        resume = ["train", "--data", text_file(), "--steps=3", "--resume"]
        refused([model(), *resume, damaged({n: None})], 1, n)
        for cut in (0, 1, 7, 8, 9, len(read[n]) // 2, len(read[n]) - 2):
            refused([model(), *resume, damaged({n: read[n][:cut]})], 1, n)
        for i in range(0, len(read[n]), max(1, len(read[n]) // 12)):
            broken = bytearray(read[n])
            broken[i] ^= 0x40
            r = sh([model(), *resume, damaged({n: bytes(broken)})], ok=False)
            assert n != "meta.json" and r[0] == 1 or r[0] in (0, 1), (n, i, r)
    refused([model(), *resume, "/"], 1, "meta.json")
    refused([model(), *resume, text_file()], 1, "meta.json")
    deep = write(os.path.join(folder(), "meta.json"), "[" * 100000)
    refused([model(), *resume, damaged({"meta.json": open(deep).read()})], 1, "meta.json")


def test_places_for_checkpoints():
    work = folder()
    train = [model(), "train", "--data", text_file(), "--steps=1", "--save"]
    refused([*train, write(os.path.join(work, "file"), "x")], 1, "file", cwd=work)
    os.mkdir(os.path.join(work, "dir"))
    write(os.path.join(work, "dir", "precious"), "x")
    refused([*train, os.path.join(work, "dir")], 1, "exists and is not a checkpoint", cwd=work)
    refused([*train, os.path.join(work, "no", "where")], 1, "cannot be written here", cwd=work)
    refused([*train, ""], 1, "", cwd=work)
    assert os.listdir(os.path.join(work, "dir")) == ["precious"]
    # A link to a checkpoint: what it points to may be replaced, nothing else is.
    other = os.path.join(work, "other")
    os.mkdir(other)
    write(os.path.join(other, "precious"), "x")
    os.symlink("other", os.path.join(work, "link"))
    sh([*train, os.path.join(work, "link")], ok=False)
    assert os.listdir(other) == ["precious"]
    assert not [n for n in os.listdir(work) if "tmp" in n or "old" in n], os.listdir(work)


def st_file(header, data=b""):
    h = header if isinstance(header, bytes) else json.dumps(header).encode()
    h += b" " * (-len(h) % 8)
    return struct.pack("<Q", len(h)) + h + data


def test_weights():
    good = open(os.path.join(trained(), "model.safetensors"), "rb").read()
    work = folder()
    path = os.path.join(work, "w.safetensors")
    wrong = {"emb": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    nan = {"emb": {"dtype": "F32", "shape": [256, 4], "data_offsets": [0, 4096]}}
    for content, word in [
        (b"", "no safetensors file"), (b"abc", "no safetensors file"), (good[:len(good) - 1], "truncated"),
        (good + b"x", "after the last tensor"), (struct.pack("<Q", 2**63) + good[8:], "header length"),
        (st_file(b"{}"), "'emb' is missing"), (st_file(wrong, bytes(16)), "has shape [2, 2]; the program needs [256, 4]"),
        (st_file(nan, b"\xff" * 4096), "NaN"), (st_file(b"[" * 1000), "header"), (st_file(b'{"a":' * 3000), "header"),
        (st_file({"emb%n%s": wrong["emb"]}, bytes(16)), "missing"),
        (st_file({**nan, "more": {"dtype": "F32", "shape": [], "data_offsets": [4096, 4100]}}, bytes(4100)), "'more'"),
        (st_file({"emb": {"dtype": "I64", "shape": [256, 4], "data_offsets": [0, 8192]}}, bytes(8192)), "I64"),
    ]:
        refused([model(), "generate", "--weights", write(path, content), "--prompt", "x"], 1, word)
    for p in ("/dev/zero", os.path.join(work, "nope")):
        refused([model(), "generate", "--weights", p, "--prompt", "x"], 1, p)
    refused([model(), "generate", "--weights", work, "--prompt", "x"], 1, "model.safetensors")
    write(path, good)
    refused([model(), "generate", "--weights", path, "--prompt", "x", "--max-tokens=2"], 0)


def test_arrays():
    work = folder()
    path = os.path.join(work, "x.npy")
    run = [model(), "run", "loss", "--in", "text=" + path, "--out", os.path.join(work, "out")]
    good = np.zeros((2, 9), np.int32)

    def saved(x, **more):
        np.save(path, x, **more)

    for x in (good.astype(np.int64), good.astype(">i4"), good.astype(np.float32), good.T.copy(), good[0], np.asfortranarray(good),
              np.zeros((2, 0), np.int32), np.zeros((2, 9, 1), np.int32), np.zeros(2, "S9"), np.zeros((2, 9), "c16")):
        saved(x)
        refused(run, 1, "x.npy")
    np.save(path, np.array([None]), allow_pickle=True)
    refused(run, 1, "x.npy")
    saved(good)
    text = open(path, "rb").read()
    for cut in range(0, len(text), 7):
        refused([*run[:4], "text=" + write(path, text[:cut]), *run[5:]], 1, "x.npy")
    write(path, text + b"x")
    refused(run, 1, "x.npy")
    assert not os.path.exists(os.path.join(work, "out"))
    # Tokens out of range are no reason to read elsewhere.
    for value in (-1, 256, 2**31 - 1, -2**31):
        saved(np.full((2, 9), value, np.int32))
        refused(run, (0, 1))


def test_places_for_results():
    work = folder()
    path = os.path.join(work, "x.npy")
    np.save(path, np.zeros((2, 9), np.int32))
    run = [model(), "run", "loss", "--in", "text=" + path, "--out"]
    refused([*run, path], 1, "x.npy")
    refused([*run, os.path.join(work, "no", "where")], 1, "No such file")
    refused([*run, ""], 1)
    out = os.path.join(work, "out")
    os.mkdir(out)
    os.symlink(write(os.path.join(work, "precious"), "x"), os.path.join(out, "loss.npy"))
    sh([*run, out])
    assert open(os.path.join(work, "precious")).read() == "x"


def test_prompts():
    for prompt in ("", "\u00fc" * 3, "x" * 10000):
        refused([model(), "generate", "--weights", trained(), "--prompt", prompt, "--max-tokens=3"], (0, 1))


main()
