"""The lock of a run folder: one process writes it at a time.

The file `lock` is locked by the kernel, which frees it when the process ends, however it ends. The
file holds the process id of its last holder and stays.
"""

from __future__ import annotations

import fcntl
import os
import pathlib

from esnac_tf.errors import UserError


def take(run_dir: pathlib.Path) -> int:
    """Locks a run folder, which must exist, until the descriptor is closed.

    Args:
        run_dir: The run folder.

    Returns:
        The descriptor of the locked file.

    Raises:
        UserError: If another process holds the folder.
        OSError: If the file can't be written.

    Example:
        >>> import tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> descriptor = take(folder)
        >>> int((folder / "lock").read_text()) == os.getpid()
        True
        >>> os.close(descriptor)
    """
    descriptor = _locked(run_dir, os.O_CREAT)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def check_free(run_dir: pathlib.Path) -> None:
    """Raises what `take` would raise now, and writes nothing.

    Args:
        run_dir: The run folder, which need not exist.

    Raises:
        UserError: If another process holds the folder.
        OSError: If the file is there and can't be written.

    Example:
        >>> check_free(pathlib.Path("missing"))
    """
    try:
        descriptor = _locked(run_dir)
    except FileNotFoundError:
        return
    os.close(descriptor)


def _locked(run_dir: pathlib.Path, flags: int = 0) -> int:
    descriptor = os.open(run_dir / "lock", os.O_RDWR | os.O_NOFOLLOW | flags, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise UserError(
            f"{run_dir} is in use by another search, process {holder}.\n"
            "Wait until it has ended, or choose another --run_dir."
        ) from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
