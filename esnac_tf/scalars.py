"""Trials as TensorBoard scalars, when the extra `tensorboard` is installed."""

from __future__ import annotations

import importlib.util
import os
import pathlib
from typing import Any

from esnac_tf.errors import UserError
from esnac_tf.trial import Trial


class ScalarWriter:
    """Writes trials as TensorBoard scalars by trial number; silent without TensorBoard.

    The scalars are `trial/objective`, `trial/validation_accuracy` (or that of another metric),
    `trial/num_params` and `search/best_objective`; what a failed trial lacks is left out.
    TensorBoard is the extra `tensorboard`, and is loaded, with TensorFlow, at the first trial.

    Args:
        path: The folder of the event files, such as `RunFolder.tensorboard_path`.

    Raises:
        UserError: From `write`, if the event file cannot be written.

    Example:
        >>> import tempfile
        >>> from esnac_tf.architecture import ActionSet
        >>> trial = Trial(0, "complete", ActionSet(), 100, 2000, 0.5, 0.4, 1.0)
        >>> with ScalarWriter(tempfile.mkdtemp()) as writer:
        ...     writer.write(trial, best_objective=0.4)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = pathlib.Path(path)
        self._writer: Any = None

    def __enter__(self) -> ScalarWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, trial: Trial, best_objective: float | None) -> None:
        """Writes the scalars of one trial and flushes them.

        Args:
            trial: A finished trial.
            best_objective: The best objective so far, this trial included; None if none is
                complete.
        """
        # TensorFlow without TensorBoard raises from inside `tf.summary`, on first use.
        if importlib.util.find_spec("tensorboard") is None:
            return
        import tensorflow as tf

        values = {
            "trial/objective": trial.objective,
            f"trial/validation_{trial.metric}": trial.validation_metric,
            "trial/num_params": trial.num_params,
            "search/best_objective": best_objective,
        }
        try:
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self._path))
            with self._writer.as_default():
                for name, value in values.items():
                    if value is not None:
                        tf.summary.scalar(name, value, step=trial.number)
            self._writer.flush()
        except tf.errors.OpError as error:
            # The message is "{{...}} PATH; REASON", then lines about its consequences.
            reason = error.message.splitlines()[0].split("; ")[-1]
            raise UserError(
                f"Cannot write TensorBoard's files to {self._path}: {reason}.\n"
                "Make room there and check its permissions, or choose another --run_dir."
            ) from error

    def close(self) -> None:
        """Closes the event file. Closing twice does nothing."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None
