"""The environment variable TF_CONFIG: which machines there are, and which of them this is."""

from __future__ import annotations

import dataclasses
import json
import os

from esnac_tf.errors import UserError, error_reason


@dataclasses.dataclass(frozen=True)
class Role:
    """This machine among several.

    Attributes:
        num_machines: How many there are, 2 or more.
        is_chief: Whether this is the one that decides, and alone writes.
    """

    num_machines: int
    is_chief: bool


def role() -> Role | None:
    """What TF_CONFIG says; None if it is not set, or names one machine alone.

    Raises:
        UserError: It can't be read.

    Example:
        >>> role() is None
        True
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
        cluster = config.get("cluster", {})
        chiefs, workers = cluster.get("chief", []), cluster.get("worker", [])
        num_machines = len(chiefs) + len(workers)
        if num_machines < 2:
            return None
        kind, index = config["task"]["type"], int(config["task"]["index"])
        among = {"chief": chiefs, "worker": workers}[kind]
        if not 0 <= index < len(among):
            raise ValueError(f"there is no {kind} {index} among {len(among)}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG can't be read: {error_reason(error)}.\nGive for instance "
            '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
        ) from error
    return Role(num_machines, kind == "chief" or (not chiefs and index == 0))
