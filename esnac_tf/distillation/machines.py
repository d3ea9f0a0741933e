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

# Kinds of orders: what is to be done.
TEACHER, SEARCH, FULL = "teacher's training", "search", "full training"
END, FAILED = "end", "failed"


@dataclasses.dataclass(frozen=True)
class Order:
    """What the chief tells the others.

    Attributes:
        kind: What is to be done, as this module has it.
        values: What belongs to it, as JSON has it.
        arrays: Arrays that belong to it.
    """

    kind: str
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    arrays: Sequence[np.ndarray] = ()


class MachinesError(UserError):
    """Machines that can't go on together: one of them is gone, or has refused."""


class Machines:
    """The machines of a cluster, as one of them sees it.

    Args:
        strategy: Divides batches among all devices of all machines.
        is_chief: Whether this is the machine that decides, and alone writes.
        num_machines: How many there are.
    """

    def __init__(self, strategy: tf.distribute.Strategy, is_chief: bool, num_machines: int) -> None:
        self.strategy, self.is_chief, self.num_machines = strategy, is_chief, num_machines
        self._is_at_work = False

    def tell(self, order: Order) -> None:
        """Tells the other machines; they must be in `hear`.

        Raises:
            MachinesError: A machine is gone.
        """
        buffer = io.BytesIO()
        text = json.dumps({"kind": order.kind, "values": order.values})
        np.savez(buffer, np.array(text), *order.arrays)
        content = buffer.getvalue()
        self._of_chief(np.frombuffer(len(content).to_bytes(_HEADER, "little"), np.uint8))
        self._of_chief(np.frombuffer(content, np.uint8))

    def hear(self) -> Order:
        """Waits for what the chief tells.

        Raises:
            MachinesError: A machine is gone, or the chief has ended with an error.
        """
        header = self._of_chief(np.zeros(_HEADER, np.uint8))
        length = int.from_bytes(header.tobytes(), "little")
        content = self._of_chief(np.zeros(length, np.uint8)).tobytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as parts:
            text, *arrays = [parts[f"arr_{index}"] for index in range(len(parts.files))]
        order = json.loads(str(text))
        if order["kind"] == FAILED:
            raise MachinesError("The chief has ended with an error.\nSee what it said.")
        return Order(order["kind"], order["values"], arrays)

    def agree(self, refusal: UserError | None = None) -> None:
        """Goes on if all machines do: each of them says so at the same time.

        Args:
            refusal: Why this one doesn't; None: it does.

        Raises:
            UserError: The refusal, or a `MachinesError` where another machine refused.
        """
        refusals = self._sum(tf.constant(1.0 if refusal else 0.0))
        if refusal is not None:
            raise MachinesError(str(refusal)) from refusal
        if refusals.any():
            raise MachinesError("Another machine of TF_CONFIG refused.\nSee what it said.")

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """What all machines do together: where it fails on one, it can't tell the others."""
        self._is_at_work = True
        with losses_told():
            yield
        self._is_at_work = False

    @contextlib.contextmanager
    def lasting(self) -> Iterator[None]:
        """The chief's work: the others are told when it ends, well or with an error."""
        try:
            yield
        except MachinesError:
            raise
        except Exception:
            if not self._is_at_work:
                self.tell(Order(FAILED))
            raise
        self.tell(Order(END))

    def _of_chief(self, content: np.ndarray) -> np.ndarray:
        """The chief's bytes on every machine: the others add zeros."""
        return self._sum(tf.constant(content.astype(np.float32))).astype(np.uint8)

    def _sum(self, own: tf.Tensor) -> np.ndarray:
        """The sum of the machines' tensors."""
        devices = self.strategy.num_replicas_in_sync // self.num_machines

        def of_first_device() -> tf.Tensor:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return own * tf.cast(tf.equal(replica % devices, 0), tf.float32)

        with losses_told():
            parts = on_replicas(self.strategy, of_first_device)()
            return np.asarray(self.strategy.reduce("SUM", parts, axis=None))


@contextlib.contextmanager
def losses_told() -> Iterator[None]:
    """Says so where another machine goes while all of them work on something.

    Raises:
        MachinesError: One is gone.
    """
    try:
        yield
    except MACHINE_ERRORS as error:
        raise MachinesError(
            f"Another machine of TF_CONFIG is gone: {error_reason(error)}.\n"
            "See what the others said. Started on all of them again, with the same --run_dir, the "
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
