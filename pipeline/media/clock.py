"""When each frame of a video is shown: the packets' times put in order, clocks that restart repaired, a constant rate.

A decoder gives frames in the order they are shown, whatever the container says, so the n-th frame is shown at the n-th
of the packets' times. Where the frame's own time is another one (AVI knows no time of showing, only of decoding), that
one is wrong.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import av.video
import numpy as np

from ..shards.quarantine import BadVideo

MAX_GAP_S = 60  # a hole in the times longer than this is a fault, not a still picture
REORDERED = 17  # frames that a decoder may give before one that was decoded earlier: 16 in H.264 and HEVC
ODD_TIMES = 0.1  # a larger share of frames without a usable time of their own is a fault
LOST = 0.1  # a larger share of frames that fall between those of the constant rate, beyond what the rate explains


class TimedFrame(NamedTuple):
    """A decoded frame and its time in ticks of the stream's clock, from the video's first frame on."""

    ticks: int
    frame: av.VideoFrame


class PacketTimes:
    """The times of packets whose frames have not been shown, by the order in which the file holds them.

    A clock that steps back in the order of decoding was restarted (joined recordings): its times come after all before.
    """

    def __init__(self):
        self._heap: list[tuple[int, int]] = []
        self._restarts, self._last_dts = 0, None

    def add(self, packet: av.Packet) -> None:
        """A packet goes into the decoder."""
        if packet.dts is not None:
            if self._last_dts is not None and packet.dts < self._last_dts:
                self._restarts += 1
            self._last_dts = packet.dts
        time = packet.pts if packet.pts is not None else packet.dts
        if packet.size and time is not None and not packet.is_discard:
            heapq.heappush(self._heap, (self._restarts, time))

    def drop(self, packet: av.Packet) -> None:
        """No frame comes of it."""
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None and (self._restarts, time) in self._heap:
            self._heap.remove((self._restarts, time))
            heapq.heapify(self._heap)

    def next(self) -> tuple[int, int] | None:
        """(number of restarts before it, ticks) of the packet that is shown next."""
        return self._heap[0] if self._heap else None

    def pop(self) -> tuple[int, int]:
        """Take it out."""
        return heapq.heappop(self._heap)


def tick(stream: av.video.stream.VideoStream) -> Fraction:
    """Seconds that a stream's times count in."""
    assert stream.time_base is not None, "a stream that is open has a time base"
    return stream.time_base


class Clock:
    """Gives every frame a time later than that of the frame before.

    Args:
        stream: whose frames they are.
        first: time in ticks of the video's first frame, where decoding begins later; None takes the first that comes.

    Attributes:
        first: that time.
        usual: ticks that a frame lasts by the header.
        repairs: frames at which the clock had restarted, stood still or was missing.
    """

    def __init__(self, stream: av.video.stream.VideoStream, first: int | None = None):
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self._tick = tick(stream)
        self._max_gap = math.floor(MAX_GAP_S / self._tick)
        self.usual = max(1, round(1 / (self._tick * rate)))
        self._offset, self._restarts, self._last = 0, 0, None
        self._counted = False  # whether the frames' own times have turned out to be in another order than the frames
        self.first, self.repairs = first, 0

    def run(self, frames: Iterator[av.VideoFrame], times: PacketTimes) -> Iterator[TimedFrame]:
        """Pair the frames with their times; at most ``REORDERED`` are kept back, and only where times are in doubt.

        Raises:
            BadVideo: reason ``timestamps``: a hole of more than a minute, or too many frames without a usable time.
        """
        waiting: deque[av.VideoFrame] = deque()
        count = 0
        for frame in frames:
            count += 1
            due = times.next()
            if not waiting and due is not None and frame.pts == due[1]:  # as it is in nearly all videos
                yield self._give(frame, times.pop())
                continue
            waiting.append(frame)
            yield from self._settled(waiting, times, end=False)
        yield from self._settled(waiting, times, end=True)
        if self.repairs > max(5, ODD_TIMES * count):
            raise BadVideo("timestamps", f"{self.repairs} of its {count} frames have no usable time")

    def _settled(self, waiting: deque[av.VideoFrame], times: PacketTimes, end: bool) -> Iterator[TimedFrame]:
        while waiting:
            head, due = waiting[0], times.next()
            if due is None:
                yield self._give(waiting.popleft(), (self._restarts, None))
            elif self._counted or head.pts is None or head.pts == due[1]:
                yield self._give(waiting.popleft(), times.pop())
            elif any(frame.pts == due[1] for frame in waiting):  # shown later than its time says
                self._counted = True
            elif head.pts < due[1]:  # more frames than packets
                yield self._give(waiting.popleft(), (self._restarts, None))
            elif end or len(waiting) > REORDERED:
                times.pop()  # that packet is never shown
            else:
                return

    def _give(self, frame: av.VideoFrame, due: tuple[int, int | None]) -> TimedFrame:
        restarts, ticks = due
        if self._last is None:
            ticks = ticks or 0
            self.first = ticks if self.first is None else self.first
            self._restarts, self._last = restarts, ticks
            return TimedFrame(ticks - self.first, frame)
        if ticks is None:
            ticks = self._last + self.usual
            self.repairs += 1
        else:
            ticks += self._offset
            if ticks <= self._last:  # restarted, or two frames of one time
                step = self.usual if restarts != self._restarts else max(1, self.usual // 2)
                self._offset += self._last + step - ticks if restarts != self._restarts else 0
                ticks = self._last + step
                self.repairs += 1
        self._restarts = restarts
        if ticks - self._last > self._max_gap:
            gap, at = (float(n * self._tick) for n in (ticks - self._last, self._last))
            raise BadVideo("timestamps", f"a hole of {gap:.0f} s at {at:.2f} s")
        self._last = ticks
        assert self.first is not None, "a frame came before"
        return TimedFrame(ticks - self.first, frame)


class ConstantRate:
    """Resamples to a constant rate as ffmpeg's ``fps`` filter does: each output time shows the nearest source frame.

    A source frame at t seconds belongs to output round((t - start) * fps); of several for one output the last wins; a
    hole is filled with the frame before it; the last frame lasts its duration.

    Args:
        tick: seconds per tick of the source's clock.
        fps: of the output.
        usual: ticks that a frame lasts which does not say it.
        start: seconds after the video's first frame.
        max_frames: of the output.

    Attributes:
        seen, lost: source frames of the wanted part, and those of them that no output shows.
        steps: ticks between source frames.
    """

    def __init__(self, tick: Fraction, fps: Fraction, usual: int, start: float = 0.0, max_frames: int | None = None):
        self._per_tick, self._fps, self._usual, self._max = (tick * fps).as_integer_ratio(), fps, usual, max_frames
        self._tick, self._origin = tick, round(Fraction(start) / tick)
        self.seen = self.lost = 0
        self.steps: list[int] = []

    def run(self, frames: Iterator[TimedFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        """(k, frame) for k = 0, 1, 2, ...; the same frame object may come several times.

        Raises:
            BadVideo: no frame lies in the wanted part.
        """
        held, held_k, held_end, count, last = None, 0, 0, 0, 0
        for ticks, frame in frames:
            at = ticks - self._origin
            k = self._place(at)
            if held is not None:
                stop = k if self._max is None else min(k, self._max)
                yield from ((j, held) for j in range(count, stop))
                count = max(count, stop)
                if count == self._max:
                    return
                self.lost += held_k == k and k >= 0
                self.steps.append(at - last)
            self.seen += k >= 0
            held, held_k, held_end, last = frame, k, at + (frame.duration or self._usual), at
        if held is None or held_k < 0:
            part = ""
            if held is not None:
                ends = float((held_end + self._origin) * self._tick)
                place = f"that begins at {float(self._origin * self._tick):g} s, it ends at {ends:.2f} s"
                part = f" in the wanted part: {place}"
            raise BadVideo("no_frames", f"the video stream yields no picture{part}")
        stop = max(1, min(self._place(held_end), held_k + round(MAX_GAP_S * self._fps)))
        yield from ((j, held) for j in range(count, stop if self._max is None else min(stop, self._max)))

    def _place(self, ticks: int) -> int:
        """The output frame nearest to a time, of two the later one; in integers, which take a tenth of the time."""
        frames, per = self._per_tick
        return (2 * ticks * frames + per) // (2 * per)

    def denser_rate(self, average: Fraction | None) -> Fraction | None:
        """The rate of the densest tenth of the video, when more frames were lost than ``fps`` explains; else None."""
        explained = max(Fraction(0), 1 - self._fps / average) if average else 0
        if self.lost <= 1 or self.lost <= (explained + LOST) * self.seen:
            return None
        return 1 / (self._tick * max(1, round(float(np.quantile(self.steps, 0.1)))))
