"""Real data-parallel training: every rank learns from its own data, gradients are averaged over a ring.

The model is a network of two layers (2 -> 64 tanh -> 1). The data are generated from a stated function,

    y = sin(3 a) cos(2 b) + a b / 2,      a, b uniform in [-1, 1]

each rank drawing its own points from a seed of its own. After every step all ranks compare a digest of the averaged
gradient; in the first step rank 0 also computes the gradient over everybody's points and compares. The program fails
when either differs, or when the loss does not fall to a tenth of where it began.

Run it alone (``python train.py``) or as N ranks with MASTER_ADDR, MASTER_PORT, WORLD_SIZE=N and RANK=0..N-1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time

# one thread per rank: the ranks share this machine
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402  (after the thread limits)
from ring import Ring  # noqa: E402

HIDDEN = 64
Parameters = dict[str, np.ndarray]


def target(points: np.ndarray) -> np.ndarray:
    """The function to learn; ``points`` is (n, 2), the result (n, 1)."""
    a, b = points[:, :1], points[:, 1:]
    return np.sin(3 * a) * np.cos(2 * b) + a * b / 2


def shard(rank: int, points: int) -> tuple[np.ndarray, np.ndarray]:
    """The points that belong to ``rank``."""
    inputs = np.random.default_rng(1000 + rank).uniform(-1, 1, (points, 2))
    return inputs, target(inputs)


def new_parameters(seed: int = 0) -> Parameters:
    """The same start on every rank."""
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.normal(0, 1.5, (2, HIDDEN)),
        "b1": rng.normal(0, 0.5, HIDDEN),
        "w2": rng.normal(0, 1 / np.sqrt(HIDDEN), (HIDDEN, 1)),
        "b2": np.zeros(1),
    }


def loss_and_gradient(p: Parameters, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean squared error and its gradient as one flat array, in the order of ``p``."""
    hidden = np.tanh(x @ p["w1"] + p["b1"])
    error = hidden @ p["w2"] + p["b2"] - y
    d_out = 2 * error / len(x)
    d_hidden = (d_out @ p["w2"].T) * (1 - hidden**2)
    parts = (x.T @ d_hidden, d_hidden.sum(0), hidden.T @ d_out, d_out.sum(0))
    return float((error**2).mean()), np.concatenate([part.ravel() for part in parts])


class Adam:
    """Kingma and Ba's optimiser on the flat gradient."""

    def __init__(self, size: int, rate: float) -> None:
        self.m, self.v, self.t, self.rate = np.zeros(size), np.zeros(size), 0, rate

    def step(self, parameters: Parameters, gradient: np.ndarray) -> None:
        self.t += 1
        self.m += 0.1 * (gradient - self.m)
        self.v += 0.001 * (gradient**2 - self.v)
        update = self.rate * (self.m / (1 - 0.9**self.t)) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)
        at = 0
        for name, value in parameters.items():
            parameters[name] = value - update[at : at + value.size].reshape(value.shape)
            at += value.size


def check_agreement(ring: Ring, gradient: np.ndarray) -> None:
    digests = ring.all_gather(hashlib.sha256(gradient.tobytes()).digest())
    if len(set(digests)) != 1:
        raise RuntimeError("the averaged gradient differs between ranks")


def check_against_whole(ring: Ring, parameters: Parameters, gradient: np.ndarray, points: int) -> None:
    """The average over ranks must be the gradient over everybody's points."""
    shards = [shard(rank, points) for rank in range(ring.size)]
    whole_x, whole_y = (np.concatenate(part) for part in zip(*shards, strict=True))
    _, expected = loss_and_gradient(parameters, whole_x, whole_y)
    if not np.allclose(gradient, expected, rtol=1e-9, atol=1e-12):
        raise RuntimeError("the averaged gradient is not the gradient of the whole batch")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--points", type=int, default=512, help="points per rank")
    parser.add_argument("--rate", type=float, default=0.03, help="learning rate")
    options = parser.parse_args()

    started = time.monotonic()
    ring = Ring.from_environment()
    print(f"rank {ring.rank} of {ring.size} is in the ring after {time.monotonic() - started:.2f} s", flush=True)
    parameters = new_parameters()
    x, y = shard(ring.rank, options.points)
    optimiser = Adam(sum(value.size for value in parameters.values()), options.rate)
    losses = []
    for step in range(1, options.steps + 1):
        loss, gradient = loss_and_gradient(parameters, x, y)
        averaged = ring.all_reduce_mean(gradient)
        check_agreement(ring, averaged)
        if step == 1 and ring.rank == 0:
            check_against_whole(ring, parameters, averaged, options.points)
        losses.append(float(ring.all_reduce_mean(np.array([loss]))[0]))
        optimiser.step(parameters, averaged)
        print(
            f"step {step:3d}/{options.steps}  loss {losses[-1]:.6f}  gradients equal on {ring.size} ranks", flush=True
        )
    ring.close()
    print(f"loss fell from {losses[0]:.6f} to {losses[-1]:.6f} over {options.steps} steps", flush=True)
    return 0 if losses[-1] < losses[0] / 10 else 1


if __name__ == "__main__":
    sys.exit(main())
