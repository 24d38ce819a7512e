"""The bit strings of which video headers are made."""

Buffer = bytes | bytearray | memoryview


class BitReader:
    """Reads a bit string from its most significant bit on."""

    def __init__(self, data: Buffer):
        self._value, self._bits = int.from_bytes(data, "big"), 8 * len(data)
        self._left = self._bits

    @property
    def position(self) -> int:
        """Bits read so far."""
        return self._bits - self._left

    def take(self, count: int) -> int:
        """The next ``count`` bits as a number."""
        if count > self._left:
            raise ValueError("a header of its stream ends too early")
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def golomb(self) -> int:
        """The next number of ue(v)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("a header of its stream has a number of more than 32 bits")
        return (1 << zeros) - 1 + self.take(zeros)
