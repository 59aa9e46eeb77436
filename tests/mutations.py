"""Random damage to files, for fuzzing."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

#: Values that replace a number in a text.
HOSTILE = (
    *(b"0", b"-1", b"1", b"99", b"1e30", b"-1e30", b"0.0045", b"1e-30", b"nan", b"NaN", b"inf"),
    *(b"-inf", b"", b"65535", b"2147483648", b"99999999999999999999", b"1_000", b"0x10", b"1,5"),
    *(b"\xd9\xa3", b"null", b"[]", b'"1"', b"1" * 5000),
)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one to three random ways."""
    for _ in range(rng.integers(1, 4)):
        data = MUTATIONS[rng.integers(len(MUTATIONS))](data, rng)
    return data


def _flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    array = np.frombuffer(data, np.uint8).copy()
    if len(array):
        # Half of the flips are in the header.
        end = len(array) if rng.random() < 0.5 else min(len(array), 400)
        places = rng.integers(end, size=rng.integers(1, 4))
        array[places] ^= (1 << rng.integers(8, size=len(places))).astype(np.uint8)
    return array.tobytes()


def _truncate(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data) + 1)]


def _remove(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(len(data) + 1, size=2))
    return data[:start] + data[min(stop, start + 200) :]


def _repeat(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(len(data) + 1, size=2))
    return data[:stop] + data[start:stop] + data[stop:]


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    place = rng.integers(len(data) + 1)
    return data[:place] + rng.bytes(rng.integers(1, 20)) + data[place:]


def _clear(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(len(data) + 1, size=2))
    return data[:start] + bytes(stop - start) + data[stop:]


def _replace_number(data: bytes, rng: np.random.Generator) -> bytes:
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?", data[:20000]))
    if not numbers:
        return data
    chosen = numbers[rng.integers(len(numbers))]
    return data[: chosen.start()] + HOSTILE[rng.integers(len(HOSTILE))] + data[chosen.end() :]


def _swap_lines(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.split(b"\n")
    first, second = rng.integers(len(lines), size=2)
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


MUTATIONS: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    _flip_bits,
    _flip_bits,
    _truncate,
    _remove,
    _repeat,
    _insert,
    _clear,
    _replace_number,
    _replace_number,
    _swap_lines,
)
