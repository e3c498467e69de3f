"""One clock for all packets of a file whose own clock starts again.

Files put end to end (`cat a.ts b.ts`) and the recordings of dashcams do that in the middle. Pictures and sound are read
apart; since both place every packet of the file in its order, they are moved alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from av.format import Flags

__all__ = ["LEAP_SECONDS", "Timeline"]

LEAP_SECONDS = 10.0
"""A clock that runs on so much further than what it counts is another one."""
_BACK_SECONDS = 0.5
"""So far back goes no decoder's reordering, only another clock."""
_BROADCAST: Any = Flags.ts_discont.value


@dataclass
class _Pace:
    """Where a stream is.

    Args:
        clock: number of the file's clock that it follows.
        shift: seconds from that clock to ours.
        last: its last stamp on that clock, None before the first.
        end: where that packet ends on ours.
    """

    clock: int
    shift: float
    last: float | None = None
    end: float = 0.0


class Timeline:
    """Moves the packets of a container, in place, from the file's clocks to the first of them.

    Where a stream's stamps run back, or in the formats meant for broadcasting leap ahead, its next packet follows the
    last one of the file without a gap. The other streams take the same step when their own stamps do, since packets of
    before the step may still come.

    Args:
        container: whose packets are placed, all of them in their order.

    Attributes:
        clocks: how often the file's clock has started again.
    """

    def __init__(self, container: Any) -> None:
        self.clocks = 0
        self._leaps = bool(int(container.format.flags) & _BROADCAST)
        self._paces: dict[int, _Pace] = {}
        self._shift = 0.0
        self._end: float | None = None

    def placed(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Yield the packets once they are placed."""
        for packet in packets:
            self.place(packet)
            yield packet

    def place(self, packet: Any) -> None:
        """Move a packet of pictures or sound; others, and those without stamps, stay as they are."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None or packet.size == 0 or packet.stream.type not in ("video", "audio"):
            return
        at = float(stamp * packet.time_base)
        pace = self._paces.setdefault(packet.stream.index, _Pace(self.clocks, self._shift))
        if self._is_another_clock(pace, at):
            self._follow(pace, at)
        step = at - pace.last if pace.last is not None else 0.0
        length = float(packet.duration * packet.time_base) if packet.duration else max(0.0, min(step, _BACK_SECONDS))
        pace.last, pace.end = at, at + pace.shift + length
        self._end = pace.end if self._end is None else max(self._end, pace.end)
        ticks = round(pace.shift / packet.time_base)
        if ticks:
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks

    def _is_another_clock(self, pace: _Pace, at: float) -> bool:
        """Whether a stamp does not go on from a stream's last one: all of the file is behind a leap, not it alone."""
        if pace.last is None or self._end is None:
            return False
        return at < pace.last - _BACK_SECONDS or (self._leaps and at + pace.shift > self._end + LEAP_SECONDS)

    def _follow(self, pace: _Pace, at: float) -> None:
        """Let a stream take the newest clock, which this is if no other stream was there before."""
        assert self._end is not None
        if pace.clock == self.clocks:
            self.clocks += 1
            self._shift = self._end - at
        pace.clock = self.clocks
        pace.shift = max(self._shift, pace.end - at)
        pace.last = None
