"""The surrogate's networks in PyTorch, in a process of its own: beside TensorFlow it crashes.

Reads the sizes as JSON from its first line of input, then takes a gradient step of all networks
for each further line, and answers with a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable


def gradient_step(sizes: dict[str, int]) -> Callable[[], object] | None:
    """A function that takes a step in such a process; None if PyTorch is not installed.

    Args:
        sizes: num_kernels, num_sequences, length, num_features, num_layers, hidden_size.
    """
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(line: str) -> str:
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return process.stdout.readline()

    return None if ask(json.dumps(sizes)) != "ready\n" else lambda: ask("step")


def main() -> int:
    """Takes steps until the input ends; the exit code."""
    sizes = json.loads(sys.stdin.readline())
    try:
        import torch
    except ImportError:
        print("missing", flush=True)
        return 0
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    batch = torch.rand(sizes["num_sequences"], sizes["length"], sizes["num_features"])
    networks = [
        torch.nn.LSTM(
            sizes["num_features"],
            sizes["hidden_size"],
            sizes["num_layers"],
            batch_first=True,
            bidirectional=True,
        )
        for _ in range(sizes["num_kernels"])
    ]
    optimizers = [torch.optim.Adam(network.parameters()) for network in networks]
    print("ready", flush=True)
    for _ in sys.stdin:
        for network, optimizer in zip(networks, optimizers, strict=True):
            optimizer.zero_grad()
            outputs, _ = network(batch)
            embedded = torch.nn.functional.normalize(outputs.mean(dim=1), dim=-1)
            (embedded @ embedded.T).mean().backward()
            optimizer.step()
        print("done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
