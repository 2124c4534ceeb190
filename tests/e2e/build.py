"""The last step, from C text to a binary: what happens without a C compiler, with one that fails, with an output that
cannot be written; and that nothing is left behind."""
import os
import signal
import stat
import subprocess
import time

import _moe

MODEL = os.path.join(_moe.ROOT, "examples", "mlp.moe")


def moecc(*argv, env=None):
    tmp = _moe.tempfile.mkdtemp(dir=_moe.TMP)
    status, out, err = _moe.sh([_moe.MOECC, *argv], ok=False, env={"TMPDIR": tmp, **(env or {})})
    assert os.listdir(tmp) == [], f"left behind: {os.listdir(tmp)}"
    return status, out, err


def fake_cc(text):
    path = os.path.join(_moe.tempfile.mkdtemp(dir=_moe.TMP), "cc")
    with open(path, "w") as f:
        f.write("#!/bin/sh\n" + text)
    os.chmod(path, 0o755)
    return path


def folder():
    return _moe.tempfile.mkdtemp(dir=_moe.TMP)


def test_binary_has_the_usual_mode():
    out = os.path.join(folder(), "model")
    old = os.umask(0o022)
    status, _, err = moecc(MODEL, "-o", out)
    os.umask(old)
    assert status == 0, err
    assert stat.S_IMODE(os.stat(out).st_mode) == 0o755
    assert os.listdir(os.path.dirname(out)) == ["model"]


def test_no_compiler():
    out = os.path.join(folder(), "model")
    status, _, err = moecc(MODEL, "-o", out, env={"CC": "/nowhere/cc"})
    assert status == 1, err
    assert "error: cannot run the C compiler /nowhere/cc: No such file or directory (set CC to one)" in err, err
    assert not os.path.exists(out)


def test_a_compiler_that_never_works_is_the_users_error():
    out = os.path.join(folder(), "model")
    status, _, err = moecc(MODEL, "-o", out, env={"CC": fake_cc("echo it hurts >&2; exit 3\n")})
    assert status == 1 and "it hurts" in err, err
    assert os.listdir(os.path.dirname(out)) == []


def test_a_compiler_that_refuses_our_text_is_our_bug():
    out = os.path.join(folder(), "model")
    refuse = """for f; do grep -qs 'compiled by moecc' "$f" && { echo it hurts >&2; exit 3; }; done; exec cc "$@"\n"""
    status, _, err = moecc(MODEL, "-o", out, env={"CC": fake_cc(refuse)})
    assert status == 70, err
    assert "it hurts" in err and f"kept in {out}.c" in err, err
    assert os.listdir(os.path.dirname(out)) == ["model.c"]


def test_old_output_survives_a_failure():
    out = os.path.join(folder(), "model")
    with open(out, "w") as f:
        f.write("old")
    moecc(MODEL, "-o", out, env={"CC": fake_cc("exit 3\n")})
    assert open(out).read() == "old"


def test_output_cannot_be_written():
    out = os.path.join(folder(), "nowhere", "model")
    status, _, err = moecc(MODEL, "-o", out)
    assert status == 1 and "error: cannot write" in err, err


def test_hostile_names_reach_no_shell():
    where = folder()
    out = os.path.join(where, "a b;$(touch x)'\"")
    status, _, err = moecc(MODEL, "-o", out)
    assert status == 0, err
    assert os.listdir(where) == [os.path.basename(out)]


def test_command_is_shown_and_not_run():
    out = os.path.join(folder(), "model")
    status, _, err = moecc(MODEL, "-o", out, "-###")
    assert status == 0 and " -O3 " in err and not os.path.exists(out), err


def test_debug_keeps_the_text():
    out = os.path.join(folder(), "model")
    status, _, err = moecc(MODEL, "-o", out, "-g")
    assert status == 0, err
    text = open(out + ".c").read()
    assert "const MoeProgram moe_program" in text and "// " + MODEL in text


def test_signal_cleans_up():
    tmp, where = folder(), folder()
    env = {**os.environ, "TMPDIR": tmp, "CC": fake_cc("sleep 60\n")}
    p = subprocess.Popen([_moe.MOECC, MODEL, "-o", os.path.join(where, "model")], env=env, stderr=subprocess.DEVNULL)
    while not os.listdir(tmp):
        time.sleep(0.05)
    time.sleep(0.2)
    p.send_signal(signal.SIGTERM)
    assert p.wait(20) == -signal.SIGTERM
    assert os.listdir(tmp) == [] and os.listdir(where) == []


if __name__ == "__main__":
    _moe.main()
