"""Several processes under mpirun: threads inside each, MPI between them, and the bits of a single process.

Every run is bounded by a time limit, so a hang is a failure. All traffic stays on this machine.
"""
import os
import signal
import subprocess
import time

import numpy as np
from _moe import BUILD, TMP, build, main, sh, steps, text_file

SIZES = ["L=4", "B=8", "S=16", "M=32", "N=4", "V=128", "G=8", "E=8", "P=16"]
MESH = "data=2,expert=2"
RANKS = (2, 4)
LIMIT = 120
# Leaks are MPI's own, where a sanitizer is built in.
ENV = {"ASAN_OPTIONS": "detect_leaks=0", "LD_LIBRARY_PATH": BUILD}


def launcher(*options, btl="self,vader"):
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "btl", btl, "--mca", "btl_tcp_if_include", "lo",
            "--mca", "oob_tcp_if_include", "lo", "--mca", "btl_vader_single_copy_mechanism", "none", *options]


def lm():
    return build("gshard_lm.moe", MESH, SIZES)


def mpi(ranks, *argv, ok=True, btl="self,vader", env=None):
    return sh([*launcher("-np", ranks, btl=btl), *argv], ok=ok, env={**ENV, **(env or {})}, timeout=LIMIT)


def train(tag, ranks, *options, **how):
    """Progress lines without their speed, and the folder of the checkpoint; one process for ranks = 0."""
    folder = os.path.join(TMP, tag)
    argv = [lm(), "train", "--data", text_file(), "--seed=3", "--steps=5", "--devices=4", "--save", folder, *options]
    _, out, _ = mpi(ranks, *argv, **how) if ranks else sh(argv, env=how.get("env"), timeout=LIMIT)
    return [line[:line.index(" tokens/s")] for line in out.splitlines() if line.startswith("step")], folder


def same_bytes(a, b):
    names = sorted(os.listdir(a))
    assert names == sorted(os.listdir(b)), (names, os.listdir(b))
    for name in names:
        with open(os.path.join(a, name), "rb") as x, open(os.path.join(b, name), "rb") as y:
            assert x.read() == y.read(), (a, b, name)


_alone = []


def alone():
    if not _alone:
        _alone.append(train("alone", 0))
    return _alone[0]


def error_lines(err):
    return [line for line in err.splitlines() if line.startswith("error:")]


def test_every_collective_by_its_definition():
    for ranks in (2, 3, 4):
        mpi(ranks, os.path.join(BUILD, "tests/runtime/comm_test"))


def test_train_takes_the_same_steps_to_the_bit():
    lines, folder = alone()
    assert len(lines) == 5
    for ranks in RANKS:
        found, saved = train(f"ranks{ranks}", ranks)
        assert found == lines, (ranks, found, lines)
        same_bytes(folder, saved)


def test_over_tcp_and_with_random_delays():
    lines, folder = alone()
    found, saved = train("tcp", 2, btl="self,tcp", env={"MOE_CHAOS": "5"})
    assert found == lines
    same_bytes(folder, saved)


def test_workers_change_nothing():
    lines, folder = alone()
    found, saved = train("workers", 2, "--workers=3")
    assert found == lines
    same_bytes(folder, saved)


def test_groups_of_which_some_cross():
    """Six devices in two ranks of three: an expert group within each rank, and one across."""
    uneven = build("gshard_lm.moe", "data=3,expert=2", ["L=2", "B=6", "S=16", "M=32", "N=4", "V=128", "G=6", "E=6", "P=16"])
    argv = [uneven, "train", "--data", text_file(), "--steps=3", "--save"]
    sh([*argv, os.path.join(TMP, "uneven")])
    for ranks in (2, 3):
        mpi(ranks, *argv, os.path.join(TMP, f"uneven{ranks}"))
        same_bytes(os.path.join(TMP, "uneven"), os.path.join(TMP, f"uneven{ranks}"))


def test_resume_with_other_numbers_of_ranks():
    lines, folder = alone()
    half, rest = os.path.join(TMP, "half"), os.path.join(TMP, "rest")
    text = text_file()
    mpi(4, lm(), "train", "--data", text, "--seed=3", "--steps=5", "--stop-at=2", "--save-every=1", "--save", half)
    mpi(2, lm(), "train", "--data", text, "--resume", half, "--save", rest)
    same_bytes(folder, rest)


def test_eval():
    _, folder = alone()
    argv = [lm(), "eval", "--data", text_file("short.txt", 20_000), "--weights", folder]
    _, want, _ = sh(argv)
    assert want.startswith("eval windows")
    for ranks in RANKS:
        assert mpi(ranks, *argv)[1] == want


def test_generate_greedily():
    _, folder = alone()
    argv = [lm(), "generate", "--weights", folder, "--prompt", "let the", "--temperature=0", "--max-tokens=8"]
    _, want, _ = sh(argv)
    plain = "".join(c if c in "\n\t" or ord(c) >= 32 else "." for c in want)
    for ranks in RANKS:
        assert mpi(ranks, *argv)[1].replace("\r\n", "\n") in (want, plain)


def test_run_with_arrays():
    """Split and whole results; each rank reads its part of the argument."""
    _, folder = alone()
    x = os.path.join(TMP, "x.npy")
    np.save(x, np.random.default_rng(5).integers(32, 127, (8, 17)).astype(np.int32))

    def results(name, launch):
        out = os.path.join(TMP, name)
        argv = [lm(), "run", "loss", "--in", f"text={x}", "--weights", folder, "--out", out]
        launch(argv)
        return out

    want = results("run-alone", sh)
    for ranks in RANKS:
        same_bytes(want, results(f"run-{ranks}", lambda argv, n=ranks: mpi(n, *argv)))


def test_an_error_on_all_ranks_is_one_message():
    for ranks in RANKS:
        code, _, err = mpi(ranks, lm(), "train", "--data", "none", ok=False)
        assert code == 1 and error_lines(err) == ["error: none: No such file or directory"], (code, err)
    code, _, err = mpi(2, lm(), "train", "--dat", "none", ok=False)
    assert code == 2 and len(error_lines(err)) == 1 and "did you mean '--data'?" in err, (code, err)
    code, _, err = mpi(3, lm(), "train", "--data", text_file(), ok=False)
    assert code == 1 and error_lines(err) == ["error: 4 devices cannot be dealt evenly to 3 processes"], (code, err)


def test_an_error_on_one_rank_ends_all():
    """Rank 1 stands in a folder without the text; rank 0 is in its first step by then."""
    for ranks in RANKS:
        here, there = os.path.join(TMP, f"here{ranks}"), os.path.join(TMP, f"there{ranks}")
        os.makedirs(here)
        os.makedirs(there)
        os.symlink(text_file(), os.path.join(here, "text"))
        argv = [lm(), "train", "--data", "text", "--steps=1000000"]
        began = time.monotonic()
        code, _, err = sh([*launcher("-np", ranks - 1, "--wdir", here), *argv, ":", "-np", "1", "--wdir", there, *argv],
                          ok=False, env=ENV, timeout=LIMIT)
        lines = error_lines(err)
        assert code == 1 and len(lines) == 1, (code, err)
        assert lines[0].startswith(f"error: rank {ranks - 1} on ") and "text: No such file" in lines[0], lines
        assert time.monotonic() - began < 30


def test_ranks_with_different_arguments_are_refused():
    argv = [lm(), "train", "--data", text_file()]
    code, _, err = sh([*launcher("-np", "1"), *argv, "--seed=1", ":", "-np", "1", *argv, "--seed=2"], ok=False, env=ENV,
                      timeout=LIMIT)
    assert code == 1 and error_lines(err) == ["error: the ranks are not all the same program with the same arguments"]


def rank_processes(binary):
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/exe") == binary:
                env = open(f"/proc/{pid}/environ", "rb").read().split(b"\0")
                found.update({int(v.split(b"=")[1]): int(pid) for v in env if v.startswith(b"OMPI_COMM_WORLD_RANK=")})
        except OSError:  # it has ended, or is another user's
            pass
    return found


def death(ranks, victim, how):
    """Standard error and seconds from the death to the end of the job."""
    errors = os.path.join(TMP, "death.err")
    with open(errors, "w") as err:
        job = subprocess.Popen([*launcher("-np", str(ranks)), lm(), "train", "--data", text_file(), "--steps=1000000"],
                               stdout=subprocess.PIPE, stderr=err, env={**os.environ, **ENV}, text=True)
    try:
        for line in job.stdout:
            if line.startswith("step 3 "):
                break
        pids = rank_processes(os.path.realpath(lm()))
        assert len(pids) == ranks, pids
        os.kill(pids[victim], how)
        began = time.monotonic()
        job.communicate(timeout=30)
        took = time.monotonic() - began
        assert job.returncode != 0 and not rank_processes(os.path.realpath(lm()))
    finally:
        job.kill()
        job.wait()
    return open(errors).read(), took


def test_a_rank_that_dies_takes_the_job_down():
    for ranks, victim, how in ((2, 1, signal.SIGKILL), (4, 0, signal.SIGABRT), (4, 3, signal.SIGKILL)):
        err, took = death(ranks, victim, how)
        lines = error_lines(err)
        assert took < 5, took
        assert len(lines) == 1 and lines[0].startswith(f"error: rank {victim} on {os.uname().nodename} "), err
        assert " died; rank " in lines[0] and (" of 'loss', step " in lines[0] or "agreement" in lines[0] or
                                               "its own part" in lines[0]), lines


def test_a_death_on_another_machine():
    """A process namespace of its own hides a rank from the others as another machine does: the launcher tells them."""
    apart = ["unshare", "--pid", "--fork"]
    if sh([*apart, "true"], ok=False)[0] != 0:
        print("not tested: no namespaces here")
        return
    argv = [lm(), "train", "--data", text_file(), "--steps=1000000"]
    errors = os.path.join(TMP, "apart.err")
    with open(errors, "w") as err:
        job = subprocess.Popen([*launcher("-np", "1"), *argv, ":", "-np", "1", *apart, *argv], stdout=subprocess.PIPE,
                               stderr=err, env={**os.environ, **ENV}, text=True)
    try:
        for line in job.stdout:
            if line.startswith("step 3 "):
                break
        os.kill(rank_processes(os.path.realpath(lm()))[1], signal.SIGKILL)
        began = time.monotonic()
        job.communicate(timeout=30)
        assert time.monotonic() - began < 5 and job.returncode != 0
    finally:
        job.kill()
        job.wait()
    assert " told to end, and still waits for rank 1 on " in open(errors).read(), open(errors).read()


def test_a_signal_stops_all_ranks_after_a_step():
    """Only one rank gets it; all save together."""
    folder = os.path.join(TMP, "stopped")
    job = subprocess.Popen([*launcher("-np", "2"), lm(), "train", "--data", text_file(), "--steps=1000000", "--save",
                            folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **ENV}, text=True)
    try:
        for line in job.stdout:
            if line.startswith("step 3 "):
                break
        os.kill(rank_processes(os.path.realpath(lm()))[1], signal.SIGTERM)
        out, err = job.communicate(timeout=60)
    finally:
        job.kill()
        job.wait()
    assert job.returncode == 75, (job.returncode, err)
    assert sorted(os.listdir(folder)) == ["meta.json", "model.safetensors", "states.safetensors"]
    assert steps(out)


def test_a_launcher_without_a_working_mpi_is_refused():
    """As srun does without its MPI: two processes that cannot find each other."""
    argv = [lm(), "train", "--data", text_file()]
    for variables in ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}, {"PMI_SIZE": "2", "PMI_RANK": "0"}):
        code, out, err = sh(argv, ok=False, env={**ENV, **variables}, timeout=LIMIT)
        assert code == 1 and not out and "as 2 processes, but MPI sees 1" in err, (code, out, err)
    code, out, err = sh(argv, ok=False, env={**ENV, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, timeout=LIMIT)
    assert code == 1 and not out and "error:" not in err, (code, out, err)


def test_alone_needs_no_mpi():
    _, out, _ = sh(["readelf", "-d", lm()])
    assert "libmpi" not in out and "RUNPATH" in out


main()
