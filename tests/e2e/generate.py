"""Generation: prompts in chunks and then token by token give what one pass over the whole gives."""
import os

from _moe import TMP, build, main, sh, text_file

SIZES = ["L=4", "B=8", "S=32", "M=32", "N=4", "V=128", "G=8", "E=4", "P=128"]
PROMPT = "let there be light upon the face of the deep and the "


def weights():
    folder = os.path.join(TMP, "trained")
    if not os.path.isdir(folder):
        lm = build("gshard_lm.moe", "data=1,expert=2", SIZES)
        sh([lm, "train", "--data", text_file(), "--steps=60", "--seed=1", "--save", folder])
    return folder


def generate(prompt, *options, mesh="data=1,expert=2"):
    lm = build("gshard_lm.moe", mesh, SIZES)
    return sh([lm, "generate", "--weights", weights(), "--prompt", prompt, *options])[1]


def test_decoding_continues_what_a_longer_prompt_says():
    """The same bytes reach the model one at a time (decoded) and in chunks of a prompt: the cache must agree."""
    whole = generate(PROMPT, "--temperature=0", "--max-tokens=40")
    assert whole.startswith(PROMPT)
    for more in (1, 7, 16):
        again = generate(whole[:len(PROMPT) + more], "--temperature=0", f"--max-tokens={40 - more}")
        assert again == whole, (more, whole, again)


def test_every_mesh_says_the_same():
    want = generate(PROMPT, "--temperature=0", "--max-tokens=30")
    for mesh in ("data=1,expert=1", "data=2,expert=2", "data=1,expert=4"):
        assert generate(PROMPT, "--temperature=0", "--max-tokens=30", mesh=mesh) == want


def test_seeds():
    a, b, c = (generate(PROMPT, "--temperature=1", f"--seed={s}") for s in (1, 1, 2))
    assert a == b and a != c


def test_top_1_is_greedy():
    assert generate(PROMPT, "--top-k=1", "--max-tokens=20") == generate(PROMPT, "--temperature=0", "--max-tokens=20")


def test_a_prompt_longer_than_the_cache_is_refused():
    lm = build("gshard_lm.moe", "data=1,expert=2", SIZES)
    code, _, err = sh([lm, "generate", "--weights", weights(), "--prompt", "x" * 500], ok=False)
    assert code == 1 and "128" in err, (code, err)


main()
