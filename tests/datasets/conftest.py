import gzip
import struct

import numpy as np
import pytest


class FakeFiles:
    """Writes tiny data sets in the layouts of the real ones."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)

    def pictures(self, count, shape):
        return self.rng.integers(0, 256, (count, *shape), dtype=np.uint8)

    def cifar10(self, folder, count=12):
        """Five training files and a test file of `count` records; returns x and y of the first."""
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
        written = [self._records(folder / name, count, 10, coarse=False) for name in names]
        (folder / "batches.meta.txt").write_text(
            "\n".join(f"class {i}" for i in range(10)) + "\n\n"
        )
        return written[0]

    def cifar100(self, folder, count=12):
        folder.mkdir(parents=True, exist_ok=True)
        written = [
            self._records(folder / name, count, 100, coarse=True)
            for name in ("train.bin", "test.bin")
        ]
        return written[0]

    def _records(self, path, count, num_classes, coarse):
        x = self.pictures(count, (32, 32, 3))
        y = self.rng.integers(0, num_classes, count)
        content = b""
        for picture, label in zip(x, y, strict=True):
            content += bytes([19, label]) if coarse else bytes([label])
            # The reference way: plane by plane, row by row.
            for channel in range(3):
                for row in range(32):
                    content += picture[row, :, channel].tobytes()
        path.write_bytes(content)
        return x, y

    def mnist(self, folder, count=30, compressed=False):
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for part in ("train", "t10k"):
            x = self.pictures(count, (28, 28))
            y = self.rng.integers(0, 10, count).astype(np.uint8)
            files = {
                f"{part}-images-idx3-ubyte": struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)
                + x.tobytes(),
                f"{part}-labels-idx1-ubyte": struct.pack(">4BI", 0, 0, 8, 1, count) + y.tobytes(),
            }
            for name, content in files.items():
                if compressed:
                    (folder / f"{name}.gz").write_bytes(gzip.compress(content))
                else:
                    (folder / name).write_bytes(content)
            written.append((x, y))
        return written[0]


@pytest.fixture
def fake_files():
    return FakeFiles()


@pytest.fixture
def not_tested_on():
    """Joins what a data set trains on and holds out: (x, y) in the order of the source."""

    def join(splits):
        x = np.concatenate([splits.x_train, splits.x_validation])
        return x, np.concatenate([splits.y_train, splits.y_validation])

    return join


@pytest.fixture
def user_error():
    """Calls a function that must raise a UserError of one or two lines, and returns its text."""
    from esnac_tf.errors import UserError

    def check(function, *args, **kwargs):
        with pytest.raises(UserError) as caught:
            function(*args, **kwargs)
        text = str(caught.value)
        assert 1 <= len(text.splitlines()) <= 2, text
        assert text == text.strip()
        return text

    return check
