"""Makes malformed inputs of whole ones, by a seed: flags, JSON, bytes, archives, arrays."""

from __future__ import annotations

import io
import json
import random
import zipfile

import numpy as np

JUNK = (
    None, True, -1, 0, 3, 10**30, 1.5, -0.0, "", "x", "\u0000", "../../../etc/passwd", "ä" * 300,
    [], {}, [[]], {"class_name": "system", "module": "os", "config": {}}, [1, "a", None],
    "__lambda__",
)  # fmt: skip
NUMBERS = (
    "", " ", "-1", "0", "1", "2", "1.5", "1e999", "-inf", "nan", "0x10", "1_000", "10" * 30, "one",
    "1,2", ",", "[1]", "None", "true", "\u0661", "9" * 5000,
)  # fmt: skip
WORDS = (
    "", " ", ".", "..", "/", "/dev/null", "~nobody/x", "a\u0000b", "a\nb", "ä", "x" * 5000, "*",
    "(", "[a-", "auto", "none", "local", "l2", "dependency", "accuracy", "random", "esnac",
    "os.system", "keras,keras", ",,,", "saved_model", "--seed=1", "-", "{}", "$(touch /tmp/x)",
)  # fmt: skip


def flag(generator: random.Random, names: list[str]) -> list[str]:
    """One to three flags with values that they may not have."""
    chosen = [generator.choice(names) for _ in range(generator.choice([1, 1, 1, 2, 3]))]
    forms = ("--{name}={value}", "--no{name}", "--{name}", "--{name}x={value}", "--{name} {value}")
    return [
        generator.choices(forms, [20, 1, 1, 1, 1])[0].format(
            name=name, value=generator.choice(NUMBERS + WORDS)
        )
        for name in chosen
    ]


def junk_in_json(generator: random.Random, text: bytes) -> bytes:
    """JSON in which a value is another, is gone, or is there under another name."""
    values = json.loads(text)
    places = []

    def collect(container):
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            places.append((container, key))
            if isinstance(value, (dict, list)):
                collect(value)

    collect(values)
    for _ in range(generator.choice([1, 1, 2, 5])):
        container, key = generator.choice(places)
        how = generator.choice(["junk", "junk", "junk", "gone", "renamed"])
        try:
            if how == "junk":
                container[key] = generator.choice(JUNK)
            elif how == "gone" or isinstance(container, list):
                del container[key]
            else:
                container[f"{key}_"] = container.pop(key)
        except (KeyError, IndexError):  # gone before
            continue
    return json.dumps(values).encode()


def junk_in_bytes(generator: random.Random, content: bytes) -> bytes:
    """Bytes that were cut off, changed, doubled, or are others."""
    how = generator.choice(["cut", "changed", "doubled", "empty", "zeros", "random", "text", "NaN"])
    if how == "cut":
        return content[: generator.randrange(max(1, len(content)))]
    if how == "changed":
        changed = bytearray(content)
        for _ in range(generator.choice([1, 3, 30])):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        return bytes(changed)
    others = {
        "doubled": content + content,
        "empty": b"",
        "zeros": bytes(len(content)),
        "random": generator.randbytes(1000),
        "text": b"This is something else.\n",
        "NaN": b'{"a": NaN}\n',
    }
    return others[how]


def junk_in_zip(generator: random.Random, content: bytes) -> bytes:
    """An archive in which a member is malformed, gone, or somewhere else."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = generator.choice(list(members))
    how = generator.choice(["inside", "inside", "inside", "gone", "outside", "more", "large"])
    if how == "inside":
        is_json = name.endswith(".json") and generator.random() < 0.8
        members[name] = (junk_in_json if is_json else junk_in_bytes)(generator, members[name])
    elif how == "gone":
        del members[name]
    elif how == "outside":
        members[f"../../{name}"] = members.pop(name)
    elif how == "more":
        members["more/../../more"] = b"more"
    else:
        members[name] = bytes(10**7)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, inside in members.items():
            archive.writestr(member, inside)
    return target.getvalue()


def junk_arrays(generator: random.Random, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of which one is of another type, shape or range, or is gone."""
    arrays = dict(arrays)
    name = generator.choice(list(arrays))
    array = arrays[name]
    changed = array.astype("float64") if array.dtype.kind == "f" else array.astype("int64")
    how = generator.choice(
        ["gone", "objects", "text", "complex", "short", "empty", "flat", "deep", "scalar", "NaN",
         "negative", "large", "dates", "booleans", "renamed", "structured"]
    )  # fmt: skip
    if how == "gone":
        del arrays[name]
    elif how == "renamed":
        arrays[name.upper()] = arrays.pop(name)
    else:
        arrays[name] = {
            "objects": lambda: np.array([{"a": 1}] * len(array), dtype=object),
            "text": lambda: array.astype(str),
            "complex": lambda: array.astype(complex),
            "short": lambda: array[:1],
            "empty": lambda: array[:0],
            "flat": lambda: array.reshape(-1),
            "deep": lambda: array[..., None, None],
            "scalar": lambda: np.array(3),
            "NaN": lambda: np.where(np.arange(array.size).reshape(array.shape) == 7, np.nan, array),
            "negative": lambda: changed - 5,
            "large": lambda: changed + 10**9,
            "dates": lambda: np.full(array.shape, np.datetime64("2020-01-01")),
            "booleans": lambda: array > 0,
            "structured": lambda: np.zeros(len(array), dtype=[("a", "f4"), ("b", "i4")]),
        }[how]()
    return arrays
