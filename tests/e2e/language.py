"""The manual is true: its snippets, one after the other, compile, and every built-in function is in it.

A fence ```moe continues the program of the page; ```moe alone is a program of its own.
"""
import os
import re

from _moe import MOECC, ROOT, TMP, main, sh

PAGE = open(os.path.join(ROOT, "frontend", "LANGUAGE.md")).read()


def check(name, text):
    path = os.path.join(TMP, name + ".moe")
    with open(path, "w") as f:
        f.write(text)
    sh([MOECC, "check", path])


def test_snippets():
    fences = re.findall(r"^```moe( alone)?\n(.*?)^```$", PAGE, re.M | re.S)
    assert len(fences) > 4, "the manual has lost its snippets"
    check("page", "\n".join(text for alone, text in fences if not alone))
    for i, (alone, text) in enumerate(fences):
        if alone:
            check(f"alone{i}", text)


def test_builtins_are_documented():
    table = open(os.path.join(ROOT, "frontend", "builtin.c")).read()
    names = re.findall(r'^    (?:UNARY\((\w+)|\{"(\w+)")', table, re.M)
    words = set(re.findall(r"\w+", PAGE))
    missing = [a or b for a, b in names if (a or b) not in words]
    assert not missing, f"not in LANGUAGE.md: {missing}"


def test_library_is_documented():
    folder = os.path.join(ROOT, "frontend", "std")
    words = set(re.findall(r"\w+", PAGE))
    for f in sorted(os.listdir(folder)):
        functions = re.findall(r"^(?:fused )?fn (\w+)", open(os.path.join(folder, f)).read(), re.M)
        missing = [n for n in functions if n not in words]
        assert not missing, f"{f}: not in LANGUAGE.md: {missing}"


def test_readme():
    """The README's layer compiles, and its plan is what the README says: two all-to-alls, and none of the tokens or
    weights gathered."""
    readme = open(os.path.join(ROOT, "README.md")).read()
    path = os.path.join(TMP, "layer.moe")
    with open(path, "w") as f:
        f.write(re.search(r"^```moe\n(.*?)^```$", readme, re.M | re.S).group(1))
    _, plan, _ = sh([MOECC, path, "--plan"])
    kinds = re.findall(r"^ +\d+ +\d+  (\w+) \(", plan, re.M)
    assert kinds == ["all_to_all", "all_to_all"], plan


if __name__ == "__main__":
    main()
