"""judge.py FUNCTION: reads that function's arguments as JSON and prints as JSON what NumPy or ONNX Runtime make of them."""

import json
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def products(x, w, a, rows, k, out):
    """Every product of linalg.rs, x [rows, k], w [out, k], a [rows, out]."""
    x, w, a = np.reshape(x, (rows, k)), np.reshape(w, (out, k)), np.reshape(a, (rows, out))
    return {
        "gemm_nt": (x @ w.T).ravel().tolist(),
        "gemm": (a @ w).ravel().tolist(),
        "gemm_tn": (x.T @ a).ravel().tolist(),
        "gram": (w.T @ w).ravel().tolist(),
        "dot": float((x.ravel() * x.ravel()[::-1]).sum()),
        "squared_distance": float(((x.ravel() - x.ravel()[::-1]) ** 2).sum()),
    }


def factors(h, b, rows, k):
    """The lower Cholesky factor of H, and X of X·H = B."""
    h, b = np.reshape(h, (k, k)), np.reshape(b, (rows, k))
    return {
        "factor": np.linalg.cholesky(h).ravel().tolist(),
        "solution": np.linalg.solve(h, b.T).T.ravel().tolist(),
    }


def quantised(x, bits, scale, zero_point):
    """ONNX's QuantizeLinear and DequantizeLinear by their formulas, in float32."""
    x, scale = np.array(x, np.float32), np.float32(scale)
    codes = np.clip(np.rint(x / scale) + np.float32(zero_point), 0, 2**bits - 1)
    return ((codes - np.float32(zero_point)) * scale).tolist()


def onnxruntime_quantised(x, scale, zero_point):
    """The same at 8 bits by ONNX Runtime."""
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ],
        "qdq",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [len(x)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(x)])],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
            helper.make_tensor("zero", TensorProto.UINT8, [], [zero_point]),
        ],
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.array(x, np.float32)})[0].tolist()


def logarithmic(x, bits, step, shift):
    """RepQ-ViT equations 12 and 13 with 2^step for √2 and δ = 2^(-shift·step); and how far each value is from a tie, in codes."""
    step = np.float32(step).astype(np.float64)
    x, delta = np.array(x), 2.0 ** (-shift * step)
    with np.errstate(divide="ignore"):
        exact = -np.log2(x / delta) / step
    codes = np.maximum(np.rint(exact), 0)
    values = np.where(codes < 2**bits, delta * 2.0 ** (-np.minimum(codes, 2**bits) * step), 0)
    ties = np.where(np.isfinite(exact), np.abs(exact - np.floor(np.minimum(exact, 1e9)) - 0.5), 1)
    return {"values": values.tolist(), "ties": ties.tolist()}


def gptq(w, h, k, damping, scale, levels):
    """Optimal Brain Quantization (the recursion that GPTQ factorises) in GPTQ's order of channels.

    Gives the codes, and for each row how near (in codes) it came to a tie between two levels.
    """
    w = np.reshape(w, (-1, k)).astype(np.float64)
    h = np.reshape(h, (k, k)).astype(np.float64)
    inverse = np.linalg.inv(h + damping * (np.diag(np.diag(h)) + np.eye(k) * np.mean(np.diag(h))))
    levels, scale = np.array(levels, np.float64), np.array(scale, np.float64)
    codes, margin = np.zeros_like(w), np.full(len(w), np.inf)
    for q in np.argsort(-np.diag(h), kind="stable"):
        distance = np.abs(w[:, q, None] / scale[:, None] - levels)
        nearest = np.sort(distance, axis=1)
        margin = np.minimum(margin, nearest[:, 1] - nearest[:, 0])
        codes[:, q] = levels[distance.argmin(axis=1)]
        error = (w[:, q] - codes[:, q] * scale) / inverse[q, q]
        w -= np.outer(error, inverse[q])
        inverse -= np.outer(inverse[:, q], inverse[q]) / inverse[q, q]
        inverse[q, :] = inverse[:, q] = 0
        inverse[q, q] = 1
    return {"codes": codes.ravel().tolist(), "margin": margin.tolist()}


def improvements(w, h, k, codes, scale, levels):
    """Share of each row's error that the best change of one code, and the best scale, would take away."""
    w, h = np.reshape(w, (-1, k)), np.reshape(h, (k, k))
    codes, levels = np.reshape(codes, (-1, k)).astype(np.float64), np.array(levels, np.float64)
    energy = lambda e: np.einsum("...i,ij,...j->...", e, h, e)
    gains = []
    for row, code, s in zip(w, codes, scale):
        now = energy(s * code - row)
        changed = np.repeat(code[None], k * len(levels), 0)
        changed[np.arange(len(changed)), np.repeat(np.arange(k), len(levels))] = np.tile(levels, k)
        scales = s * np.linspace(0.9, 1.1, 201)[:, None]
        best = [energy(s * changed - row).min(), energy(scales * code - row).min()]
        gains += [(now - b) / now if now > 0 else 0.0 for b in best]
    return {"gains": gains}


def refit(w, x, quantised, rows, k, ridge):
    """argmin ‖X̂·W*ᵀ - X·Wᵀ‖² + λ‖W* - W‖² as one least-squares problem, without normal equations."""
    w, x, quantised = np.reshape(w, (-1, k)), np.reshape(x, (rows, k)), np.reshape(quantised, (rows, k))
    root = np.sqrt(ridge * np.mean((quantised**2).sum(0)))
    left = np.concatenate([quantised, root * np.eye(k)])
    right = np.concatenate([x @ w.T, root * w.T])
    return np.linalg.lstsq(left, right, rcond=None)[0].T.ravel().tolist()


def low_rank(e, h, k, rank):
    """The best B·A for E under H, by the symmetric root of H in place of its Cholesky factor; and the energies of all ranks."""
    e, h = np.reshape(e, (-1, k)), np.reshape(h, (k, k))
    values, vectors = np.linalg.eigh(h)
    root = (vectors * np.sqrt(values)) @ vectors.T
    u, sigma, v = np.linalg.svd(e @ root, full_matrices=False)
    product = (u[:, :rank] * sigma[:rank]) @ v[:rank] @ np.linalg.inv(root)
    return {"energy": (sigma**2).tolist(), "product": product.ravel().tolist()}


print(json.dumps(globals()[sys.argv[1]](**json.load(sys.stdin))))
