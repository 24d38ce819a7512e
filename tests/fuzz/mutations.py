"""Random faults in bytes and in JSON."""

import json
import random


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to sixteen faults."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at, kind = rng.randrange(len(found)), rng.choice(["flip", "flip", "byte", "number", "zeros", "cut", "swap"])
        if kind == "flip":
            found[at] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            found[at] = rng.randrange(256)
        elif kind == "number":
            number = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 65535, 255, 1 << 24])
            found[at & ~3 : (at & ~3) + 4] = number.to_bytes(4, rng.choice(["little", "big"]))
        elif kind == "zeros":
            found[at : at + 8] = bytes(len(found[at : at + 8]))
        elif kind == "swap":
            other = rng.randrange(len(found))
            found[at], found[other] = found[other], found[at]
        elif len(found) > 1 and rng.random() < 0.3:
            del found[max(1, at) :]
    return bytes(found)


def mutated_json(data: bytes, rng: random.Random) -> bytes:
    """Random bytes, or another value in a random place of the tree."""
    if rng.random() < 0.3:
        return mutated(data, rng)
    tree = json.loads(data)
    root = {"": tree}
    node, place = root, ""
    while isinstance(node[place], dict | list) and node[place] and rng.random() < 0.85:
        node = node[place]
        place = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
    values = [None, 0, -1, 10**9, 10**30, 1.5, float("nan"), "", "x" * 5000, "a:b", [], [1, 2], {}, {"kind": "x"}, True]
    node[place] = rng.choice(values)
    return json.dumps(root[""]).encode()
