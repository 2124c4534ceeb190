"""The library's systems against an independent implementation (tests/oracle/systems_jax.py made the fixtures): outputs,
losses and the gradients of weights and inputs, on 1 to 8 devices; and what the papers say of them."""
import os
import re

import numpy as np
from _moe import MOECC, ROOT, TMP, build, main, run, safetensors, sh, steps, text_file

FIX = os.path.join(ROOT, "tests/oracle/fixtures")
MODEL = os.path.join(ROOT, "tests/oracle/systems.moe")
WEIGHTS = os.path.join(FIX, "systems_weights.safetensors")
EXPECTED = safetensors(os.path.join(FIX, "systems_expected.safetensors"))
MESHES = ["data=1,expert=1", "data=1,expert=2", "data=2,expert=2", "data=2,expert=4"]
SYSTEMS = sorted({k.split("/")[0] for k in EXPECTED})


def close(found, want, what):
    error = np.linalg.norm(found.astype(np.float64) - want) / max(np.linalg.norm(want.astype(np.float64)), 1e-30)
    assert error < 1e-5, (what, error)


def expected(system, kind):
    """Tensors of one system: its outputs (kind "") or its gradients."""
    head = f"{system}/{kind}"
    return {k[len(head):]: v for k, v in EXPECTED.items() if k.startswith(head) and (kind or k.count("/") == 1)}


def step(mesh, system):
    """What one step of `train` writes: for each parameter that the system reads, its gradient."""
    out = os.path.join(TMP, f"{system}-{mesh}")
    sh([build(MODEL, mesh), "run", system, "--train", "--steps=1", "--weights", WEIGHTS, "--out", out + "-out", "--save", out])
    return safetensors(out + "/model.safetensors"), safetensors(out + "/states.safetensors")


def test_outputs_and_losses():
    for mesh in MESHES:
        for system in SYSTEMS:
            found = run(build(MODEL, mesh), system, {}, "--weights", WEIGHTS)
            for name, want in expected(system, "").items():
                if name != "bias":
                    close(found[name], want, (mesh, system, name))


def test_gradients():
    start = safetensors(WEIGHTS)
    for mesh in MESHES:
        for system in SYSTEMS:
            found, _ = step(mesh, system)
            want = expected(system, "grad/")
            for path, g in want.items():
                close(found[path], g, (mesh, system, path))
            for path in found.keys() - want.keys():   # not read, or a gradient of 0
                assert not found[path].any() or np.array_equal(found[path], start[path]), (system, path)


def test_bias_follows_the_load():
    for mesh in MESHES:
        _, states = step(mesh, "v3")
        assert np.array_equal(states["v3.bias"], EXPECTED["v3/bias"]), states


def test_interpreter_equals_binary_after_every_pass():
    for mesh in MESHES:
        _, _, err = sh([MOECC, MODEL, f"--mesh={mesh}", "--check-passes"])
        assert "plan       same results" in err, err


SIZES = ["B=8", "S=32", "M=32", "N=2", "V=128"]
MODELS = [("dense_mixture_lm", "sparse=false"), ("dense_mixture_lm", "sparse=true"), ("shazeer_lm", "hierarchical=false"),
          ("shazeer_lm", "hierarchical=true"), ("switch_lm", "w_z=0.01"), ("expert_choice_lm", "E=4"),
          ("deepseek_moe_lm", "v3=false"), ("deepseek_moe_lm", "v3=true"), ("pr_moe_lm", "learned=true")]


def test_language_models_train():
    """100 steps on a text: the loss falls, nothing is lost on the way, and 4 devices begin as one does."""
    for model, variant in MODELS:
        first = {}
        axes = ("few", "many") if model == "pr_moe_lm" else ("data", "expert")
        for n in (1, 2):
            lm = build(model + ".moe", f"{axes[0]}={n},{axes[1]}={n}", [*SIZES, variant])
            found = steps(sh([lm, "train", "--data", text_file(), "--seed=2", "--steps=100", f"--stop-at={100 if n == 2 else 8}"])[1])
            first[n] = [found[i]["loss"] for i in range(1, 9)]
        losses = [found[i]["loss"] for i in range(1, 101)]
        assert np.all(np.isfinite(losses)) and np.mean(losses[-10:]) < 0.6 * losses[0], (model, variant, losses)
        assert np.allclose(first[1], first[2], rtol=1e-4), (model, variant, first)


def test_routing_is_tables():
    """No tensor of token x expert x slot is left in a compiled program."""
    dense = re.compile(r"\b[TB]:\d+[^\]]*, E[12]?:[^\]]*, C[_\d]*:\d")
    for model, variant in MODELS:
        _, plan, _ = sh([MOECC, os.path.join(ROOT, "examples", model + ".moe"), "-D", variant, "--emit=planned"])
        found = [line for line in plan.splitlines() if dense.search(line)]
        assert not found, (model, variant, found[:3])


def test_students():
    """A student that is its teacher, read from the teacher's checkpoint, has nothing to learn from it; a smaller one comes
    nearer to it; the teacher stays as it was."""
    few = [d for d in SIZES if d[0] != "P"]
    folder, saved = os.path.join(TMP, "teacher"), os.path.join(TMP, "student")
    text = ["--data", text_file(), "--seed=2"]
    sh([build("pr_moe_lm.moe", "few=2,many=2", few), "train", *text, "--steps=60", "--save", folder])
    twins = small("twins", """
import "ROOT/examples/pr_moe_lm.moe" as a (B: B, S: S, M: M, N: N, V: V)
import "ROOT/examples/pr_moe_lm.moe" as b frozen (B: B, S: S, M: M, N: N, V: V)
mesh [few: 2, many: 2]
dim B = 8, S = 32, M = 32, N = 2, V = 128
entry loss(text: i32[B, S + 1]) -> (f32[], kl: f32[]) {
    y, _ = a.decoder(text[S+1: 0..S]) in ""
    z, _ = b.decoder(text[S+1: 0..S]) in ""
    return mean(y), mean(distill(y, z, V))
}""".replace("ROOT", ROOT))
    tokens = np.random.default_rng(0).integers(32, 127, (8, 33)).astype(np.int32)
    both = ["--weights-of", f"a={folder}", "--weights-of", f"b={folder}"]
    assert abs(run(twins, "loss", {"text": tokens}, *both)["kl"]) < 1e-6
    assert run(twins, "loss", {"text": tokens}, both[0], both[1])["kl"] > 0.1
    mos = build("mos_lm.moe", "few=2,many=2", few)
    found = steps(sh([mos, "train", *text, "--steps=60", "--weights-of", f"teacher={folder}", "--save", saved])[1])
    assert found[60]["kl"] < 0.1 * found[1]["kl"], found[60]
    before, after = safetensors(folder + "/model.safetensors"), safetensors(saved + "/model.safetensors")
    assert all(np.array_equal(after["teacher." + k], v) for k, v in before.items())
    code, _, err = sh([mos, "train", *text, "--steps=2", "--weights-of", f"pupil={folder}"], ok=False)
    assert code == 1 and "no variable below 'pupil'" in err, err


def small(name, text):
    path = os.path.join(TMP, name + ".moe")
    with open(path, "w") as f:
        f.write("import nn, gshard, routing, shazeer, deepseek, deepspeed\n" + text)
    return build(path)


def test_load_estimator_is_what_sampling_finds():
    """P(x, i) is the probability that i is among the top K when its noise is drawn anew and the others stay."""
    found = run(build(MODEL, MESHES[0]), "shazeer", {}, "--weights", WEIGHTS)
    w = {k: v.astype(np.float64) for k, v in safetensors(WEIGHTS).items()}
    clean, sd = w["x"] @ w["noisy.wg"], np.log1p(np.exp(w["x"] @ w["noisy.wn"]))
    h = clean + w["noise"] * sd
    rng, n, k = np.random.default_rng(0), 4000, 2
    share = np.zeros(h.shape)
    for i in range(h.shape[-1]):
        others = np.sort(np.delete(h, i, -1), -1)[..., -k]
        share[..., i] = np.mean(clean[..., i, None] + rng.normal(size=(*h.shape[:2], n)) * sd[..., i, None] > others[..., None], -1)
    assert np.max(np.abs(share - found["p"])) < 5 * 0.5 / np.sqrt(n), np.max(np.abs(share - found["p"]))


def test_losses_at_balance_and_at_collapse():
    """Balanced: the balance losses of DeepSeekMoE and Switch are 1, the coefficients of variation 0. One expert for all:
    E / K, and E - 1."""
    model = small("losses", """
dim S = 8, C = S, E = 8, K = 2, Dg = 4
entry losses(z: f32[S, E]) -> (switch: f32[], expert: f32[], device: f32[], cv: f32[], sample: f32[]) {
    g, s = deepseek_gates(z, E, K)
    f, p = expert_load(g, s, E)
    _, _, aux = switch_gating(z, S, E, C)
    count = sum(one_hot(argmax(z, E), E), S)
    return aux, expert_balance(f, p, E), device_balance(f, p, E, Dg), cv2(f32(count), E), cv2(f32(count), E, ddof: 1)
}""")
    i = np.arange(8)
    ring = np.zeros((8, 8), np.float32)
    ring[i, i], ring[i, (i + 1) % 8] = 9, 7
    got = run(model, "losses", {"z": ring})
    assert all(abs(got[k] - 1) < 1e-5 for k in ("switch", "expert", "device")) and got["cv"] < 1e-6, got
    one = np.zeros((8, 8), np.float32)
    one[:, 0], one[:, 1] = 40, 20
    got = run(model, "losses", {"z": one})
    assert abs(got["switch"] - 8) < 1e-4 and abs(got["expert"] - 4) < 1e-4 and abs(got["device"] - 4) < 1e-4, got
    assert abs(got["cv"] - 7) < 1e-4 and abs(got["sample"] - 8) < 1e-4, got


def test_noisy_gates_start_even():
    """Weights of 0: in training the noise chooses, and each choice has weight near 1/K; the load is nearly even."""
    model = small("noisy", """
dim S = 4096, M = 4, E = 8, K = 2
entry gates(x: f32[S, M]) -> (g: f32[S, E], p: f32[S, E], load: f32[]) {
    g, p = noisy_top_k(x, M, E, K, noisy: true)
    return g, p, load_loss(p, E, 1.0)
}""")
    got = run(model, "gates", {"x": np.ones((4096, 4), np.float32)})
    count = (got["g"] > 0).sum(0)
    assert np.all((got["g"] > 0).sum(1) == 2) and np.allclose(got["g"].sum(1), 1, atol=1e-6)
    assert count.max() / count.mean() < 1.1 and got["load"] < 1e-3, (count, got["load"])


def test_sinkhorn_balances():
    """In the limit rows and columns have equal sums, however uneven the logits are."""
    model = small("sinkhorn", """
dim S = 32, E = 8
entry balance(z: f32[S, E]) -> f32[S, E] { return sinkhorn(z, S, E, rounds: 60) }""")
    z = np.random.default_rng(2).normal(size=(32, 8)).astype(np.float32) + 2 * np.arange(8, dtype=np.float32) / 8
    p = run(model, "balance", {"z": z})["balance"]
    assert np.allclose(p.sum(1), 1 / 32, rtol=1e-4) and np.allclose(p.sum(0), 1 / 8, rtol=1e-3), (p.sum(0), p.sum(1))


def test_an_expert_without_tokens_has_gradient_zero():
    model = small("empty", """
dim S = 8, C = S, M = 4, E = 4, H = 4, K = 2
entry loss(x: f32[S, M]) -> f32[] {
    param wg: f32[M, E] = 0
    param wi: f32[E, M, H] = fan_in(M)
    g, _ = deepseek_gates(einsum(x, wg -> [S, E]), E, K)
    combine, dispatch = gate_slots(g, S, E, C)
    h = relu(einsum(einsum(dispatch, x -> [E, C, M]), wi -> [E, C, H]))
    return sum(einsum(combine, h -> [S, H]))
}
fn gradient(p: ?[...], g: ?[...]) -> ?[...] { return g }
train loss with gradient()""")
    work = os.path.join(TMP, "empty")
    np.save(work + ".npy", np.ones((8, 4), np.float32))
    sh([model, "run", "loss", "--train", "--steps=1", "--in", f"x={work}.npy", "--out", work + "-out", "--save", work])
    g = safetensors(work + "/model.safetensors")
    assert all(np.isfinite(v).all() for v in g.values()) and not g["wi"][2:].any() and g["wi"][:2].any(), g


main()
