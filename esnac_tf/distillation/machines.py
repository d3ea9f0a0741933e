"""Several machines that train models together: TensorFlow's MultiWorkerMirroredStrategy.

Every machine runs the same program, with its own place in the environment variable TF_CONFIG. One
of them, the chief, decides what is trained, and tells the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from esnac_tf.distillation.devices import on_replicas
from esnac_tf.distillation.step_error import MACHINE_ERRORS
from esnac_tf.errors import UserError, error_reason
from esnac_tf.tf_config import role

# Bytes of the length that goes before what is told.
_HEADER = 8


@dataclasses.dataclass(frozen=True)
class Order:
    """What the chief tells the others.

    Attributes:
        kind: What is to be done.
        values: What belongs to it, as JSON has it.
        arrays: Arrays that belong to it.
    """

    kind: str
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    arrays: Sequence[np.ndarray] = ()


@dataclasses.dataclass(frozen=True)
class Machines:
    """The machines of a cluster, as one of them sees it.

    Attributes:
        strategy: Divides batches among all devices of all machines.
        is_chief: Whether this is the machine that decides, and alone writes.
        num_machines: How many there are.
    """

    strategy: tf.distribute.Strategy
    is_chief: bool
    num_machines: int

    def tell(self, order: Order) -> None:
        """Tells the other machines; they must be in `hear`.

        Raises:
            UserError: A machine is gone.
        """
        buffer = io.BytesIO()
        text = json.dumps({"kind": order.kind, "values": order.values})
        np.savez(buffer, np.array(text), *order.arrays)
        content = buffer.getvalue()
        self._sum(np.frombuffer(len(content).to_bytes(_HEADER, "little"), np.uint8))
        self._sum(np.frombuffer(content, np.uint8))

    def hear(self) -> Order:
        """Waits for what the chief tells.

        Raises:
            UserError: A machine is gone.
        """
        if threading.current_thread() is threading.main_thread():
            # TensorFlow waits, maybe for hours, without a look at Python's Ctrl+C.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        header = self._sum(np.zeros(_HEADER, np.uint8))
        length = int.from_bytes(header.tobytes(), "little")
        content = self._sum(np.zeros(length, np.uint8)).tobytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as parts:
            text, *arrays = [parts[f"arr_{index}"] for index in range(len(parts.files))]
        order = json.loads(str(text))
        return Order(order["kind"], order["values"], arrays)

    def _sum(self, content: np.ndarray) -> np.ndarray:
        """The chief's bytes on every machine: the others add zeros."""
        own = tf.constant(content.astype(np.float32))

        def first_only() -> tf.Tensor:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return own * tf.cast(tf.equal(replica, 0), tf.float32)

        with losses_told():
            parts = on_replicas(self.strategy, first_only)()
            return self.strategy.reduce("SUM", parts, axis=None).numpy().astype(np.uint8)


@contextlib.contextmanager
def losses_told() -> Iterator[None]:
    """Says so where another machine goes while all of them work on something.

    Raises:
        UserError: One is gone.
    """
    try:
        yield
    except MACHINE_ERRORS as error:
        if joined() is None:
            raise
        raise UserError(
            f"Another machine of TF_CONFIG is gone: {error_reason(error)}.\n"
            "See what the chief said. Started on all of them again, with the same --run_dir, the "
            "search goes on."
        ) from error


@functools.cache
def joined() -> Machines | None:
    """The machines that TF_CONFIG names; None if it is not set, or names one alone.

    It is to be called before TensorFlow is used for anything else, on every machine.

    Raises:
        UserError: TF_CONFIG can't be read, or TensorFlow was used before.

    Example:
        >>> joined() is None
        True
    """
    here = role()
    if here is None:
        return None
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UserError(
            f"The machines of TF_CONFIG can't be joined: {error_reason(error)}.\n"
            "Call esnac_tf.distillation.machines.joined() before TensorFlow is used, or unset "
            "TF_CONFIG."
        ) from error
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"The machines of TF_CONFIG can't be joined: {error_reason(error)}.\n"
            "Look at its addresses, and whether their ports are free."
        ) from error
    return Machines(strategy, here.is_chief, here.num_machines)
