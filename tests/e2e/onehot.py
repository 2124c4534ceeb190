"""No planned tensor has a token, an expert and a slot (or a choice) together: forward, backward, on every mesh."""
import glob
import os
import re

from _moe import MOECC, ROOT, main, sh

EXPERTS, PLACES = {"E"}, {"C", "K", "choice"}


def tokens(path):
    """The axis of the tokens that compete: S, or T where positions are regrouped, or B where each S is a group."""
    text = open(path).read()
    return "T" if re.search(r"\bT = B \* S / G", text) else "B" if "expert_choice" in path else "S"


def tensors(text):
    """The axes of each type in the text."""
    for axes in re.findall(r"\b(?:f32|i32|bool)\[([^\]]*)\]", text):
        yield {label.strip('"') for label in re.findall(r'("[^"]*"|\w+):\d+', axes)}


def check(path, meshes):
    for mesh in meshes:
        _, out, _ = sh([MOECC, path, "--emit=planned", *([f"--mesh={mesh}"] if mesh else [])])
        dense = [t for t in tensors(out) if tokens(path) in t and t & EXPERTS and t & PLACES]
        assert not dense, (path, mesh, dense)


def test_examples():
    for path in sorted(glob.glob(os.path.join(ROOT, "examples", "*.moe"))):
        two = re.search(r"^mesh \[(\w+): \d+, (\w+): \d+\]", open(path).read(), re.M)
        check(path, [f"{two.group(1)}={a},{two.group(2)}={b}" for a, b in ((1, 1), (1, 2), (2, 2), (2, 4))] if two else [None])


def test_the_layer_of_the_benchmark():
    check(os.path.join(ROOT, "tests", "bench", "moe_layer.moe"), ["expert=1", "expert=8"])


def test_it_says_what_became_of_each_einsum():
    _, _, err = sh([MOECC, os.path.join(ROOT, "examples", "gshard_layer.moe"), "--explain-onehot", "--stop-after=onehot"])
    lines = sorted(set(re.findall(r"gshard_layer\.moe:(\d+):\d+: einsum (.*)", err)))
    assert [what for _, what in lines] == ["becomes a move of rows"] * 2, err


main()
