#!/usr/bin/env python3
"""The GShard language model of examples/gshard_lm.moe, written again in JAX from the papers, in float64.

Makes the fixture that tests/e2e/reference.py compares with: start weights, a text, 20 losses and the first step's
gradients. Run by hand, in an environment with jax and numpy:

    python3 tests/oracle/gshard_jax.py tests/oracle/fixtures

Sizes are those of SIZES below; the test passes them to moecc with -D. Random routing is off: everything else of GShard's
Algorithm 1 (Lepikhin et al. 2020) is here, written with loops over tokens instead of prefix sums.
"""
import json
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

SIZES = dict(L=4, B=4, S=16, M=16, N=2, V=128, G=2, E=4)
STEPS, SEED, WARMUP, PEAK, DECAY, CLIP, CAPACITY = 20, 7, 20, 3e-3, 0.1, 1.0, 2.0
L, B, S, M, N, V, G, E = (SIZES[k] for k in "LBSMNVGE")
D, H, T = M // N, 4 * M, B * S // G
C = -(-int(CAPACITY * T) // E)


# ---- data: Philox4x32-10 picks each row's window ------------------------------------------------------------------------
def philox(key, counter):
    k0, k1 = key
    x = list(counter)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(p1 >> 32) ^ x[1] ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ x[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return x


def batch(text, step):
    train = len(text) - len(text) // 20
    rows = []
    for r in range(B):
        x = philox((SEED, 0x74657874), (r, 0, step, 0))
        start = (x[0] << 32 | x[1]) % (train - S)
        rows.append(text[start:start + S + 1])
    return np.array(rows, np.int32)


# ---- the model ------------------------------------------------------------------------------------------------------------
def rms(x, w):
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * w


def rope(x):  # [B, S, N, D], pairs (i, i + D/2)
    freq = 1e4 ** (-2.0 / D * np.arange(D // 2))
    a = np.arange(S)[:, None] * freq
    c, s = np.cos(a)[None, :, None], np.sin(a)[None, :, None]
    lo, hi = x[..., :D // 2], x[..., D // 2:]
    return jnp.concatenate([lo * c - hi * s, hi * c + lo * s], -1)


def attention(x, p):
    q = rope(jnp.einsum("bsm,mnd->bsnd", x, p["wq"]))
    k = rope(jnp.einsum("bsm,mnd->bsnd", x, p["wk"]))
    v = jnp.einsum("bsm,mnd->bsnd", x, p["wv"])
    z = jnp.einsum("bsnd,btnd->bnst", q, k) / np.sqrt(D)
    z = jnp.where(np.tril(np.ones((S, S), bool)), z, -jnp.inf)
    return jnp.einsum("bnst,btnd,ndm->bsm", jax.nn.softmax(z, -1), v, p["wo"])


def moe(x, p):
    """Algorithm 1 by its text: first choices take slots in token order, then second ones; a refused one still counts."""
    gates = jax.nn.softmax(x @ p["wg"], -1)  # [G, T, E]
    order = np.argsort(-np.asarray(jax.lax.stop_gradient(gates)), axis=-1, kind="stable")
    first, second = order[..., 0], order[..., 1]
    out, aux = [], 0.0
    for g in range(G):
        counter, slots = np.zeros(E, int), []
        for choice in (first[g], second[g]):
            slot = np.zeros(T, int)
            for t in range(T):
                slot[t] = counter[choice[t]]
                counter[choice[t]] += 1
            slots.append(slot)
        count = np.bincount(first[g], minlength=E)
        aux = aux + jnp.mean(count / T * gates[g].mean(0))
        rows = np.arange(T)
        g1, g2 = gates[g][rows, first[g]], gates[g][rows, second[g]]
        y = 0.0
        for w, choice, slot in ((g1, first[g], slots[0]), (g2, second[g], slots[1])):
            h = jax.nn.relu(jnp.einsum("tm,tmh->th", x[g], p["wi"][choice]))
            y = y + jnp.where(slot < C, w / (g1 + g2), 0.0)[:, None] * jnp.einsum("th,thm->tm", h, p["wo"][choice])
        out.append(y)
    return jnp.stack(out), aux / G


def loss(params, text):
    sub = lambda prefix: {k[len(prefix):]: v for k, v in params.items() if k.startswith(prefix)}
    x, aux = params["emb"][text[:, :S]], 0.0
    for l in range(L):
        p = f"block.{l}."
        x = x + attention(rms(x, params[p + "ln1.weight"]), sub(p + "attn."))
        h = rms(x, params[p + "ln2.weight"])
        if l % 2:
            y, a = moe(h.reshape(G, T, M), sub(p + "moe."))
            x, aux = x + y.reshape(B, S, M), aux + a
        else:
            x = x + jax.nn.relu(h @ params[p + "mlp.wi"]) @ params[p + "mlp.wo"]
    z = rms(x, params["ln.weight"]) @ params["emb"].T
    nll = -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z, -1), text[:, 1:, None], -1))
    return nll + 0.01 * E * E * aux / (L // 2)


def start(rng):
    p = {"emb": (V, M, 0.02), "ln.weight": (M, 0)}
    for l in range(L):
        b = f"block.{l}."
        p.update({b + "ln1.weight": (M, 0), b + "ln2.weight": (M, 0), b + "attn.wo": (N, D, M, M ** -0.5)})
        p.update({b + "attn." + w: (M, N, D, M ** -0.5) for w in ("wq", "wk", "wv")})
        if l % 2:
            p.update({b + "moe.wg": (M, E, 0.5), b + "moe.wi": (E, M, H, M ** -0.5), b + "moe.wo": (E, H, M, H ** -0.5)})
        else:
            p.update({b + "mlp.wi": (M, H, M ** -0.5), b + "mlp.wo": (H, M, H ** -0.5)})
    draw = lambda shape, std: rng.normal(size=shape) * std if std else 1 + 0.1 * rng.normal(size=shape)
    return {k: draw(v[:-1], v[-1]).astype(np.float32) for k, v in p.items()}


# ---- training: global-norm clip, AdamW, warm-up and cosine ------------------------------------------------------------------
def rate(step):
    warm = min(1.0, (step + 1) / WARMUP)
    done = min(1.0, max(0.0, (step - WARMUP) / max(STEPS - WARMUP, 1)))
    return PEAK * warm * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * done)))


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for k in sorted(tensors):
        n = tensors[k].nbytes
        header[k] = {"dtype": "F32", "shape": list(tensors[k].shape), "data_offsets": [offset, offset + n]}
        offset += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + b"".join(tensors[k].tobytes() for k in sorted(tensors)))


def main(folder):
    rng = np.random.default_rng(SEED)
    words = "in the beginning was word and light of day night earth water upon face said let there be good".split()
    raw = " ".join(words[i] for i in rng.integers(0, len(words), 800)).encode()
    text = np.frombuffer(raw, np.uint8).astype(np.int32)
    weights = start(rng)
    write_safetensors(os.path.join(folder, "gshard_weights.safetensors"), weights)
    with open(os.path.join(folder, "gshard_text.txt"), "wb") as f:
        f.write(raw)
    params = {k: jnp.asarray(v, jnp.float64) for k, v in weights.items()}
    m = {k: jnp.zeros_like(v) for k, v in params.items()}
    v = {k: jnp.zeros_like(x) for k, x in params.items()}
    losses, expected = [], {}
    for step in range(STEPS):
        value, grads = jax.value_and_grad(loss)(params, batch(text, step))
        losses.append(float(value))
        if step == 0:
            expected = {"grad." + k: np.asarray(g, np.float32) for k, g in grads.items()}
        norm = np.sqrt(sum(float(jnp.sum(g * g)) for g in grads.values()))
        scale = min(1.0, CLIP / norm)
        for k, g in grads.items():
            m[k] = 0.9 * m[k] + 0.1 * g * scale
            v[k] = 0.999 * v[k] + 0.001 * (g * scale) ** 2
            update = m[k] / (1 - 0.9 ** (step + 1)) / (jnp.sqrt(v[k] / (1 - 0.999 ** (step + 1))) + 1e-8)
            params[k] = params[k] - rate(step) * (update + DECAY * params[k])
        print(step + 1, losses[-1], norm, flush=True)
    expected["losses"] = np.array(losses, np.float32)
    write_safetensors(os.path.join(folder, "gshard_expected.safetensors"), expected)
    with open(os.path.join(folder, "gshard_sizes.json"), "w") as f:
        json.dump({**SIZES, "STEPS": STEPS, "SEED": SEED}, f)


if __name__ == "__main__":
    main(sys.argv[1])
