"""Random numbers and permutations as pure functions of a key and a counter: no state, any order, vectorised.

The mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, variant 13 of Stafford). The
permutation is a Feistel network on the smallest power of two that holds the range, with cycle walking: values that land
outside are encrypted again until they land inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FEISTEL_ROUNDS = 8  # even, so that the two halves keep their sizes; 8 also scrambles ranges of a few items


def mix64(x: np.ndarray) -> np.ndarray:
    """Scramble uint64 values; a bijection in which every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fold(*words) -> np.ndarray:
    """Hash integers (broadcast together, negative ones modulo 2**64) to uint64 of at least one dimension."""
    state = np.array([0x5851F42D4C957F2D], np.uint64)
    for word in words:
        state = mix64(state + _GOLDEN + mix64(np.atleast_1d(np.asarray(word)).astype(np.int64).view(np.uint64)))
    return state


def uniform(bits: np.ndarray) -> np.ndarray:
    """float64 in [0, 1), from the upper 53 bits of uint64."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniform_columns(key: np.ndarray, columns: int) -> np.ndarray:
    """float64 (n, columns) in [0, 1), independent for every entry of ``key``, uint64 (n,)."""
    return uniform(mix64(mix64(key[:, None] + _GOLDEN * np.arange(1, columns + 1, dtype=np.uint64))))


def permute(value: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """Where each value goes in the permutation of ``range(size)`` that its key selects.

    Args:
        value: int64 (n,), in [0, size).
        size: length of the range, at least 1.
        key: uint64, broadcastable to (n,): one permutation per key.

    Returns:
        int64 (n,), in [0, size); for one key, distinct values go to distinct places.
    """
    bits = max(2, (size - 1).bit_length())
    low = bits // 2
    low_bits, low_mask, high_mask = np.uint64(low), np.uint64((1 << low) - 1), np.uint64((1 << (bits - low)) - 1)
    round_keys = mix64(key + _GOLDEN * np.arange(1, _FEISTEL_ROUNDS + 1, dtype=np.uint64)[:, None])

    out = value.astype(np.uint64)
    pending = np.arange(len(out))
    keys = np.broadcast_to(round_keys, (_FEISTEL_ROUNDS, len(out)))
    while len(pending):
        x = out[pending]
        left, right = x >> low_bits, x & low_mask
        for r in range(0, _FEISTEL_ROUNDS, 2):
            left = left ^ (mix64(right ^ keys[r, pending]) & high_mask)
            right = right ^ (mix64(left ^ keys[r + 1, pending]) & low_mask)
        x = (left << low_bits) | right
        out[pending] = x
        pending = pending[x >= np.uint64(size)]
    return out.astype(np.int64)
