#!/usr/bin/env python3
"""The systems of tests/oracle/systems.moe, written again in JAX from the papers, in float64.

Makes the fixtures that tests/e2e/systems.py compares with: weights, and for each system its outputs, its losses and the
gradient of each parameter, the input among them. Choices and slots are loops over tokens in NumPy, where the library has
prefix sums and one-hots. Run by hand, in an environment with jax and numpy:

    python3 tests/oracle/systems_jax.py tests/oracle/fixtures
"""
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gshard_jax import write_safetensors  # noqa: E402  (float64 is switched on there)

B, S, M, E, K, C, H, A, J, NG, KG, DG = 2, 8, 6, 8, 2, 5, 5, 4, 3, 4, 2, 4

SHAPES = {
    "x": (B, S, M), "noise": (B, S, E), "target": (B, S, M), "targets": (B, S, E), "goal": (B, S, A, J),
    "n1": (B, S, A), "n2": (B, S, A, J), "wi": (E, M, H), "wo": (E, H, M), "experts.wi": (E, M, H), "experts.wo": (E, H, M),
    "router.wg": (M, E), "teacher.wg": (M, E), "noisy.wg": (M, E), "noisy.wn": (M, E),
    "two.primary.wg": (M, A), "two.primary.wn": (M, A), "two.secondary.wg": (A, M, J), "two.secondary.wn": (A, M, J),
    "balanced.wg": (M, E), "balanced.threshold": (E,), "shared.wi": (M, H), "shared.wo": (H, M), "fixed.wi": (M, H),
    "fixed.wo": (H, M), "residual.coefficient": (M, 2),
}


# ---- choices, with loops: constants of the gradient --------------------------------------------------------------------
def values(x):
    return np.asarray(jax.lax.stop_gradient(x))


def best(row, k):
    """Indices of the k largest, ties to the lower index."""
    return sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]


def mask_top(x, k):
    """1 where an element is among the k largest of its last axis."""
    v = values(x)
    m = np.zeros(v.shape)
    for at in np.ndindex(v.shape[:-1]):
        m[at][best(v[at], k)] = 1
    return m


def refuse(sent):
    """`sent` [B, S, E]: 1 where a token asks for an expert. Each expert takes the first C of a row of tokens."""
    kept = np.zeros(sent.shape)
    for b in range(B):
        room = [C] * E
        for s in range(S):
            for e in range(E):
                if sent[b, s, e] and room[e] > 0:
                    kept[b, s, e], room[e] = 1, room[e] - 1
    return kept


# ---- pieces ------------------------------------------------------------------------------------------------------------
def phi(x):
    return 0.5 * (1 + jax.scipy.special.erf(x / np.sqrt(2)))


def cv2(v):
    v = v.reshape(-1)
    return jnp.var(v) / jnp.mean(v) ** 2


def mixture(x, gates, wi, wo):
    """sum_i G(x)_i E_i(x), every expert on every token."""
    y = jnp.einsum("bseh,ehm->bsem", jax.nn.relu(jnp.einsum("bsm,emh->bseh", x, wi)), wo)
    return jnp.einsum("bse,bsem->bsm", gates, y)


def mlp(x, wi, wo):
    return jax.nn.relu(x @ wi) @ wo


def experts(p, gates):
    return mixture(p["x"], gates * refuse(values(gates) > 0), p["experts.wi"], p["experts.wo"])


def noisy(x, wg, wn, noise, k):
    """Gates and P(x, i) for one gate: x [..., M], wg [M, n]. The threshold leaves i out by sorting the others."""
    clean = x @ wg
    deviation = jax.nn.softplus(x @ wn)
    h = clean + noise * deviation
    top = mask_top(h, k)
    gates = jax.nn.softmax(jnp.where(top > 0, h, -jnp.inf), -1)
    n = h.shape[-1]
    kth = jnp.stack([jnp.sort(jnp.delete(h, i, -1), -1)[..., n - 1 - k] for i in range(n)], -1)
    return gates, phi((clean - kth) / deviation)


# ---- systems: the objective first, then what is compared -------------------------------------------------------------------
def dense(p):
    y = mixture(p["x"], jax.nn.softmax(p["x"] @ p["router.wg"], -1), p["wi"], p["wo"])
    return jnp.sum(y * p["target"]), {"y": y}


def shazeer(p):
    g, q = noisy(p["x"], p["noisy.wg"], p["noisy.wn"], p["noise"], K)
    y = experts(p, g)
    imp, load = cv2(g.sum((0, 1))), cv2(q.sum((0, 1)))
    return jnp.sum(y * p["target"]) + imp + load, {"y": y, "gates": g, "p": q, "imp": imp, "load": load}


def hierarchical(p):
    g1, p1 = noisy(p["x"], p["two.primary.wg"], p["two.primary.wn"], p["n1"], K)
    gates, load = [], []
    for i in range(A):
        g2, p2 = noisy(p["x"], p["two.secondary.wg"][i], p["two.secondary.wn"][i], p["n2"][:, :, i], K)
        sent = values(g1[:, :, i]) > 0
        gates.append(g1[:, :, i, None] * g2)
        load.append(p1[:, :, i].sum() * (p2 * sent[..., None]).sum((0, 1)) / max(sent.sum(), 1))
    gates, load = jnp.stack(gates, 2), jnp.stack(load)
    imp = gates.sum((0, 1))
    balance = cv2(imp) + cv2(load)
    return jnp.sum(gates * p["goal"]) + balance, {"gates": gates, "imp": imp, "load": load, "balance": balance}


def balanced(p):
    g = jax.nn.softmax(p["x"] @ p["balanced.wg"], -1)
    t = p["balanced.threshold"]
    chosen = np.swapaxes(mask_top(jnp.swapaxes(g, 1, 2), K * S // E), 1, 2)
    above = values(g) > values(t)
    move = jnp.sum((above * 1.0 - chosen) * (g - t))

    def normalized(m):
        return g * m / jnp.maximum((g * m).sum(-1, keepdims=True), 1e-20)
    y = normalized(chosen)
    return jnp.sum(y * p["targets"]) + move, {"gates": y, "thresholded": normalized(above), "move": move}


def deepseek(p):
    s = jax.nn.softmax(p["x"] @ p["router.wg"], -1)
    m = mask_top(s, K)
    y = experts(p, s * m) + mlp(p["x"], p["shared.wi"], p["shared.wo"])
    f = jnp.array([E / (K * B * S) * m[:, :, e].sum() for e in range(E)])
    q = jnp.stack([s[:, :, e].sum() / (B * S) for e in range(E)])
    per = E // DG
    expert = sum(f[e] * q[e] for e in range(E))
    device = sum(f[d * per:(d + 1) * per].mean() * q[d * per:(d + 1) * per].sum() for d in range(DG))
    return jnp.sum(y * p["target"]) + expert + device, {"y": y, "f": f, "p": q, "expert": expert, "device": device}


def grouped(x, two):
    """1 where an expert lies in one of the KG best groups of NG."""
    v, per = values(x), E // NG
    keep = np.zeros(v.shape)
    for at in np.ndindex(v.shape[:-1]):
        rows = [sorted(v[at][g * per:(g + 1) * per])[::-1] for g in range(NG)]
        for g in best([r[0] + r[1] if two else r[0] for r in rows], KG):
            keep[at][g * per:(g + 1) * per] = 1
    return keep


def v3(p):
    z = p["x"] @ p["router.wg"]
    s = jax.nn.sigmoid(z)
    m = mask_top(jnp.where(grouped(s, True) > 0, s, -jnp.inf), K)
    g = 2.5 * s * m / (s * m).sum(-1, keepdims=True)
    count = m.sum((0, 1))
    q = jax.nn.softmax(z, -1)
    o = mask_top(jnp.where(grouped(q, False) > 0, q, 0), K)
    one = q * o / (q * o).sum(-1, keepdims=True)
    return jnp.sum((g + one) * p["targets"]), {"gates": g, "one": one, "bias": 0.25 * np.sign(count.mean() - count)}


def residual(p):
    q = jax.nn.softmax(p["x"] @ p["router.wg"], -1)
    first = mask_top(q, 1)
    y = experts(p, q * first)
    fixed = mlp(p["x"], p["fixed.wi"], p["fixed.wo"])
    c = jax.nn.softmax(p["x"] @ p["residual.coefficient"], -1)
    w = y * c[..., :1] + fixed * c[..., 1:]
    aux = E * jnp.mean(jnp.sum(first.mean(1) * q.mean(1), -1))
    return jnp.sum((w + y + fixed) * p["target"]) + aux, {"y": w, "sum": y + fixed}


def around(p):
    l, t = p["x"] @ p["router.wg"], p["x"] @ p["teacher.wg"]
    q, r = jax.nn.log_softmax(l, -1), jax.nn.log_softmax(jax.lax.stop_gradient(t), -1)
    z = jnp.mean(jax.scipy.special.logsumexp(l, -1) ** 2)
    kl = jnp.sum(jnp.exp(r) * (r - q), -1)
    scores = jnp.exp(q)
    taken = np.swapaxes(mask_top(jnp.swapaxes(scores, 1, 2), C), 1, 2)
    y = mixture(p["x"], scores * taken, p["experts.wi"], p["experts.wo"])
    b = values(scores)
    for _ in range(3):
        b = b / b.sum(1, keepdims=True) / E
        b = b / b.sum(2, keepdims=True) / S
    return jnp.sum(y * p["target"]) + z + jnp.sum(kl), {"z": z, "kl": kl, "balanced": b, "y": y}


SYSTEMS = [dense, shazeer, hierarchical, balanced, deepseek, v3, residual, around]


def main(folder):
    rng = np.random.default_rng(11)
    weights = {k: rng.normal(size=s).astype(np.float32) * np.float32(0.5 if "w" in k else 1) for k, s in SHAPES.items()}
    weights["balanced.threshold"] = rng.uniform(0.1, 0.25, E).astype(np.float32)
    params = {k: jnp.asarray(v, jnp.float64) for k, v in weights.items()}
    expected = {}
    for system in SYSTEMS:
        (value, outputs), grads = jax.value_and_grad(system, has_aux=True)(params)
        outputs = {system.__name__: value, **outputs}
        expected.update({f"{system.__name__}/{k}": np.asarray(v, np.float32) for k, v in outputs.items()})
        for k, g in grads.items():
            if np.any(np.asarray(g)):
                expected[f"{system.__name__}/grad/{k}"] = np.asarray(g, np.float32)
    write_safetensors(os.path.join(folder, "systems_weights.safetensors"), weights)
    write_safetensors(os.path.join(folder, "systems_expected.safetensors"), expected)


if __name__ == "__main__":
    main(sys.argv[1])
