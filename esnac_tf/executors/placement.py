"""How many workers a cluster has room for, and what each of them has."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from esnac_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Plan:
    """How students are placed.

    Attributes:
        num_workers: How many processes train.
        cpus: CPUs of each; 0 on machines of more GPUs than CPUs, where they are shared.
        gpus: GPUs of each.
        capacity: How many students share a worker's GPU; more, where there are too few workers.
    """

    num_workers: int
    cpus: int
    gpus: int
    capacity: int

    def __str__(self) -> str:
        """In words.

        Example:
            >>> print(Plan(4, 2, 1, 1))
            4 workers of 2 CPUs and 1 GPU
        """
        parts = [(self.cpus, "CPU"), (self.gpus, "GPU")]
        told = [f"{count} {name}{'s' * (count > 1)}" for count, name in parts if count]
        return f"{self.num_workers} worker{'s' * (self.num_workers > 1)} of {' and '.join(told)}"


def plan(
    nodes: Sequence[Mapping[str, float]],
    num_students: int,
    cpus_per_candidate: int | None = None,
    gpus_per_candidate: float | None = None,
) -> Plan:
    """Plans the workers for a cluster.

    Args:
        nodes: What each node has in all: "CPU" and "GPU", by Ray's names.
        num_students: How many students there are at most at once, 1 or more.
        cpus_per_candidate: CPUs of a student; None: as many as still let the most students be
            trained at once.
        gpus_per_candidate: GPUs of a student; of less than 1, students share a GPU and are trained
            together. None: 1 if there are GPUs, else 0.

    Raises:
        UserError: No machine has room for a student.

    Example:
        >>> plan([{"CPU": 32, "GPU": 4}, {"CPU": 32, "GPU": 4}], num_students=8)
        Plan(num_workers=8, cpus=8, gpus=1, capacity=1)
        >>> plan([{"CPU": 32, "GPU": 4}], num_students=8, gpus_per_candidate=0.25)
        Plan(num_workers=2, cpus=16, gpus=1, capacity=4)
        >>> plan([{"CPU": 2}], num_students=8)
        Plan(num_workers=2, cpus=1, gpus=0, capacity=1)
    """
    if gpus_per_candidate is None:
        gpus_per_candidate = float(any(node.get("GPU", 0) >= 1 for node in nodes))
    capacity = int(1 / gpus_per_candidate) if 0 < gpus_per_candidate < 1 else 1
    gpus, most = math.ceil(gpus_per_candidate), math.ceil(num_students / capacity)

    def room(cpus: int) -> int:
        needs = {"CPU": cpus, "GPU": gpus}
        places = [
            min(int(node.get(name, 0)) // count for name, count in needs.items() if count)
            for node in nodes
        ]
        return min(most, sum(places))

    if cpus_per_candidate is None:
        least = 0 if gpus else 1
        largest = max((int(node.get("CPU", 0)) for node in nodes), default=1)
        most_cpus = (n for n in range(largest, least, -1) if 0 < room(n) == room(least))
        cpus = next(most_cpus, least)
    else:
        cpus = cpus_per_candidate * capacity
    if room(cpus) < 1:
        there = [f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes]
        raise UserError(
            f"No machine has room for a worker of {cpus or 1} CPUs and {gpus} GPUs; there are "
            f"{', '.join(dict.fromkeys(there)) or 'none'}.\n"
            "Give smaller --cpus_per_candidate and --gpus_per_candidate."
        )
    return Plan(room(cpus), cpus, gpus, capacity)
