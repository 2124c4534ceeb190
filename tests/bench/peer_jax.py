#!/usr/bin/env python3
"""The benchmarks' models in JAX, for a ratio in the same run: peer_jax.py FORM WHAT DEVICES EXPERTS MODE REPEAT.

FORM onehot: GShard's dense einsums, as users write them for GSPMD. FORM gather: the tables by hand: which token fills
each slot, which slot holds each choice. WHAT lm | layer, MODE forward | train. Devices are XLA's virtual ones on the
host. Prints what a moecc binary's `bench` prints.
"""
import os
import statistics
import sys
import time

FORM, WHAT, DEVICES, EXPERTS, MODE, REPEAT = (int(a) if a.isdigit() else a for a in sys.argv[1:7])
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"
os.environ["JAX_PLATFORMS"] = "cpu"
import jax  # noqa: E402 (reads the environment)
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P  # noqa: E402

DATA = 2 if WHAT == "lm" and DEVICES == 4 else 1
MESH = Mesh(np.array(jax.devices()).reshape(DATA, DEVICES // DATA), ("data", "expert"))
TOKENS = ("data", "expert")


def put(*spec):
    return NamedSharding(MESH, P(*spec))


def pin(x, *spec):
    return jax.lax.with_sharding_constraint(x, put(*spec))


# ---- the layer --------------------------------------------------------------------------------------------------------
def route(gates, capacity, key):
    """GShard's Algorithm 1: for both choices [2, G, S] expert, slot, weight, and whether the choice is sent."""
    e = gates.shape[-1]
    g, i = jax.lax.top_k(gates, 2)
    g = g / g.sum(-1, keepdims=True)
    m = jax.nn.one_hot(i, e, dtype=jnp.int32)
    first, second = m[:, :, 0], m[:, :, 1]
    count = first.sum(1)
    aux = jnp.mean(count / gates.shape[1] * gates.mean(1))
    p1 = ((jnp.cumsum(first, 1) - first) * first).sum(-1)
    p2 = ((jnp.cumsum(second, 1) - second + count[:, None]) * second).sum(-1)
    sent = jnp.ones_like(p2, bool) if key is None else 2 * g[..., 1] > jax.random.uniform(key, g[..., 1].shape)
    expert, slot = jnp.stack([i[..., 0], i[..., 1]]), jnp.stack([p1, p2])
    keep = (slot < capacity) & jnp.stack([jnp.ones_like(sent), sent])
    return expert, slot, jnp.stack([g[..., 0], g[..., 1]]), keep, aux


def experts_apply(xe, p):
    xe = pin(xe, "expert", "data")
    h = jax.nn.relu(jnp.einsum("egcm,emh->egch", xe, p["wi"]))
    return jnp.einsum("egch,ehm->egcm", h, p["wf"])


def moe(x, p, capacity, key=None):
    gates = jax.nn.softmax(x @ p["wg"], -1)
    e = gates.shape[-1]
    expert, slot, weight, keep, aux = route(gates, capacity, key)
    kept = keep.mean()
    if FORM == "onehot":
        at = jax.nn.one_hot(expert, e)[..., None] * jax.nn.one_hot(slot, capacity)[..., None, :] * keep[..., None, None]
        combine = (weight[..., None, None] * at).sum(0)
        xe = jnp.einsum("gsec,gsm->egcm", at.sum(0), x)
        return pin(jnp.einsum("gsec,egcm->gsm", combine, experts_apply(xe, p)), TOKENS), aux, kept

    def tables(expert, slot, keep):  # of one group
        cell = jnp.where(keep, expert * capacity + slot, e * capacity)
        token = jnp.broadcast_to(jnp.arange(x.shape[1]), cell.shape)
        return cell, jnp.full(e * capacity + 1, x.shape[1]).at[cell.ravel()].set(token.ravel())[:-1]

    cell, token = jax.vmap(tables, (1, 1, 1), (1, 0))(expert, slot, keep)
    xe = jax.vmap(lambda x, t: x.at[t].get(mode="fill", fill_value=0))(x, token)
    ye = experts_apply(xe.reshape(x.shape[0], e, capacity, -1).swapaxes(0, 1), p)
    ye = pin(ye.swapaxes(0, 1).reshape(x.shape[0], e * capacity, -1), TOKENS)
    back = jax.vmap(lambda y, c: y.at[c].get(mode="fill", fill_value=0), (0, 1), 1)(ye, cell)
    return pin((jnp.where(keep, weight, 0)[..., None] * back).sum(0), TOKENS), aux, kept


# ---- the language model -----------------------------------------------------------------------------------------------
def rms(x, w):
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w


def rope(x):
    s, d = x.shape[1], x.shape[-1]
    angle = jnp.arange(s)[:, None] * 1e4 ** (-2.0 / d * jnp.arange(d // 2))
    cos, sin = jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]
    a, b = x[..., :d // 2], x[..., d // 2:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def attention(x, p):
    q, k, v = (jnp.einsum("bsm,mnd->bsnd", x, p[n]) for n in ("wq", "wk", "wv"))
    z = jnp.einsum("bsnd,btnd->bnst", rope(q), rope(k)) * q.shape[-1] ** -0.5
    z = jnp.where(jnp.tril(jnp.ones(z.shape[-2:], bool)), z, -jnp.inf)
    return jnp.einsum("bsnd,ndm->bsm", jnp.einsum("bnst,btnd->bsnd", jax.nn.softmax(z, -1), v), p["wo"])


def lm_loss(params, text, step):
    x, aux, kept = params["emb"][text[:, :-1]], 0.0, 1.0
    for n, p in enumerate(params["block"]):
        x = x + attention(rms(x, p["ln1"]), p)
        h = rms(x, p["ln2"])
        if "wg" in p:
            g, t = 8, x.shape[0] * x.shape[1] // 8
            y, a, kept = moe(pin(h.reshape(g, t, -1), TOKENS), p, 2 * t // p["wg"].shape[1],
                             jax.random.fold_in(jax.random.key(n), step))
            x, aux = x + y.reshape(x.shape), aux + a
        else:
            x = x + jax.nn.relu(h @ p["wi"]) @ p["wf"]
    z = rms(x, params["ln"]) @ params["emb"].T
    nll = jax.nn.logsumexp(z, -1) - jnp.take_along_axis(z, text[:, 1:, None], -1)[..., 0]
    return nll.mean() + 0.01 * aux, kept


def normal(rng, scale, *shape):
    return rng.standard_normal(shape, np.float32) * np.float32(scale)


def lm_params(rng, m=128, n=4, h=512, e=8, v=256):
    def block(sparse):
        p = {w: normal(rng, m ** -0.5, m, n, m // n) for w in ("wq", "wk", "wv")}
        p |= {"wo": normal(rng, m ** -0.5, n, m // n, m), "ln1": np.ones(m, np.float32), "ln2": np.ones(m, np.float32)}
        if sparse:
            return p | {"wg": normal(rng, .02, m, e), "wi": normal(rng, m ** -.5, e, m, h), "wf": normal(rng, h ** -.5, e, h, m)}
        return p | {"wi": normal(rng, m ** -.5, m, h), "wf": normal(rng, h ** -.5, h, m)}

    return {"emb": normal(rng, .02, v, m), "ln": np.ones(m, np.float32), "block": [block(l % 2 == 1) for l in range(2)]}


# ---- training: AdamW with a global norm clip, as in the .moe files --------------------------------------------------------
def adamw(loss, lr, clip, decay):
    def step(params, m, v, n, *data):
        (value, kept), grads = jax.value_and_grad(loss, has_aux=True)(params, *data)
        norm = jnp.sqrt(sum((g * g).sum() for g in jax.tree.leaves(grads)))
        scale = jnp.minimum(1.0, clip / norm) if clip else 1.0
        grads = jax.tree.map(lambda g: g * scale, grads)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        a, b = 1 - 0.9 ** (n + 1.0), 1 - 0.999 ** (n + 1.0)
        params = jax.tree.map(lambda p, m, v: p - lr * (m / a / (jnp.sqrt(v / b) + 1e-8) + decay * p), params, m, v)
        return params, m, v, n + 1, value, kept

    return jax.jit(step, donate_argnums=(0, 1, 2))


def place(params):
    """Experts on their axis, everything else on every device."""
    experts = lambda path, x: x.ndim == 3 and path[-1].key in ("wi", "wf")
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jax.device_put(x, put("expert") if experts(path, x) else put()), params)


def main():
    rng = np.random.default_rng(0)
    if WHAT == "lm":
        params, data = lm_params(rng), [jax.device_put(rng.integers(0, 256, (8, 129), dtype=np.int32), put(TOKENS))]
        loss = lm_loss
    else:
        g, s, m, h = 8, 1024, 512, 2048
        params = {"wg": normal(rng, .02, m, EXPERTS), "wi": normal(rng, m ** -.5, EXPERTS, m, h),
                  "wf": normal(rng, h ** -.5, EXPERTS, h, m)}
        data = [jax.device_put(normal(rng, 1, g, s, m), put(TOKENS))]

        def loss(p, x, n):
            y, aux, kept = moe(x, p, 2 * s // EXPERTS)
            return ((y - x) ** 2).mean() + 0.01 * aux, kept
    params = place(params)
    times, processor, kept = [], [], 1.0
    if MODE == "train":
        step = adamw(loss, 1e-3, 1.0 if WHAT == "lm" else 0, 0.1 if WHAT == "lm" else 0)
        zeros = lambda: jax.tree.map(lambda p: jax.device_put(np.zeros(p.shape, np.float32), p.sharding), params)
        state = [params, zeros(), zeros(), jnp.int32(0)]
        call = lambda: step(*state, *data, state[3])
    else:
        forward = jax.jit(lambda p, x: moe(x, p, 2 * s // EXPERTS))
        call = lambda: forward(params, *data)
    for n in range(2 + REPEAT):
        began, used = time.perf_counter(), time.process_time()
        r = jax.block_until_ready(call())
        if MODE == "train":
            state, kept = list(r[:4]), r[5]
        if n >= 2:
            times.append(1e3 * (time.perf_counter() - began))
            processor.append(1e3 * (time.process_time() - used))
    print(f"{WHAT}: {REPEAT} calls, min {min(times):.3f} median {statistics.median(times):.3f} max {max(times):.3f} "
          f"processor {statistics.mean(processor):.3f} ms\n  mean kept {float(kept):.6g}")


main()
