"""The devices that training runs on, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from esnac_tf.errors import UnknownNameError, UserError

if TYPE_CHECKING:
    import tensorflow as tf

DISTRIBUTE = ("auto", "none", "mirrored", "grouped")


def get_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Returns the distribution strategy of that name.

    Models that are trained or evaluated with it must be built within its `scope()`.

    Args:
        name: "none": one device, TensorFlow's default. "mirrored": every GPU of this machine,
            or every logical CPU device if there is no GPU; one alone is the default. "auto":
            "mirrored" if there is
            more than one GPU, else "none". "grouped": as "mirrored"; the students of a search
            step are shared out among the devices, each trained on one (`one_device_strategies`).

    Returns:
        The strategy.

    Raises:
        UnknownNameError: If the name is none of these.

    Example:
        >>> get_strategy("none").num_replicas_in_sync
        1
    """
    if name not in DISTRIBUTE:
        raise UnknownNameError(
            "device strategy", name, DISTRIBUTE, "esnac_tf/distillation/devices.py"
        )
    import tensorflow as tf  # Takes seconds; the names are needed at once.

    if name == "none" or (name == "auto" and num_gpus() < 2) or len(_devices()) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(_devices())


def check_divides(
    batch_size: int,
    strategy: tf.distribute.Strategy,
    advice: str = "distribute='none' for one device",
) -> None:
    """Refuses batches that can't be divided evenly among the devices of a strategy.

    Args:
        batch_size: Of all devices together.
        strategy: The strategy.
        advice: What else the user may do.

    Raises:
        UserError: They can't.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise UserError(
            f"The batch size must divide among the {replicas} replicas, received {batch_size}.\n"
            f"Give another, or {advice}."
        )


def share_out(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Any:
    """The batches of a dataset, each divided among the replicas of a strategy.

    On one replica they are not prefetched to its device, nor is their iterator tuned: see
    `without_tuning`. On several they come by iterators of their own, which are.

    Args:
        dataset: Of batches [B, ...].
        strategy: B divides among its replicas (`check_divides`).

    Returns:
        The dataset on one replica, else a distributed one of batches [B / replicas, ...] each.

    Example:
        >>> import tensorflow as tf
        >>> shared = share_out(tf.data.Dataset.from_tensors([1, 2]), get_strategy("none"))
        >>> [batch.numpy().tolist() for batch in shared]
        [[1, 2]]
    """
    dataset = without_tuning(dataset)
    if strategy.num_replicas_in_sync == 1:
        return dataset
    return strategy.experimental_distribute_dataset(dataset)


def without_tuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same dataset with iterators that end at once.

    When an iterator goes, TensorFlow 2.21 waits for the thread that tunes it. Where the training
    keeps all cores busy, that thread often misses that it shall end and sleeps on: until 2.5 s,
    5.1 s, 10.2 s or so after the beginning of the epoch, which then takes up to twice its time.
    What would be tuned runs with TensorFlow's default parallelism instead.

    Args:
        dataset: Any dataset; its other options stay.

    Example:
        >>> import tensorflow as tf
        >>> without_tuning(tf.data.Dataset.range(3)).options().autotune.enabled
        False
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def on_replicas(strategy: tf.distribute.Strategy, function: Callable[..., Any]) -> Any:
    """A `tf.function` that runs a function on each replica.

    TensorFlow takes functions of the same code for one that it traces again and again, and warns;
    a partial has no code.
    """
    import tensorflow as tf

    return tf.function(functools.partial(_run, strategy, function), autograph=False)


def _run(strategy: tf.distribute.Strategy, function: Callable[..., Any], *args: Any) -> Any:
    return strategy.run(function, args)


def one_device_strategies() -> list[tf.distribute.Strategy]:
    """A strategy for each GPU of this machine, or for each logical CPU device if there is none.

    Example:
        >>> {strategy.num_replicas_in_sync for strategy in one_device_strategies()}
        {1}
    """
    import tensorflow as tf

    return [tf.distribute.OneDeviceStrategy(device) for device in _devices()]


def num_gpus() -> int:
    """How many GPUs TensorFlow uses here."""
    import tensorflow as tf

    return len(tf.config.list_logical_devices("GPU"))


def _devices() -> list[str]:
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    return [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
