"""A model of PyTorch's caching allocator on CUDA: how many bytes a sequence of allocations makes it reserve.

Rules as documented for `CUDACachingAllocator` with default settings: sizes are rounded to 512 bytes; requests up to
1 MiB are served from 2 MiB segments, larger ones below 10 MiB from 20 MiB segments, the rest from segments of their
own, rounded to 2 MiB; the smallest free block that is large enough is taken, and split where enough is left; neighbours
merge when released; when the device is full, free segments are given back and the request is tried again.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

from ppgs.estimate.scaling import Event

MIB = 1 << 20
_ROUND = 512
_SMALL = MIB
_SMALL_SEGMENT = 2 * MIB
_MEDIUM = 10 * MIB
_MEDIUM_SEGMENT = 20 * MIB
_LARGE_ROUND = 2 * MIB


class OutOfMemory(Exception):
    """The allocations exceed the budget."""


class _Block:
    __slots__ = ("after", "before", "free", "order", "segment", "size", "small")

    def __init__(self, size: int, small: bool, segment: int, order: int) -> None:
        self.size, self.small, self.segment, self.order = size, small, segment, order
        self.before: _Block | None = None
        self.after: _Block | None = None
        self.free = False


_Free = tuple[int, int, _Block]


class Allocator:
    """Bytes in use and reserved under a budget (bytes; None is unlimited)."""

    def __init__(self, budget: int | None = None) -> None:
        self._budget = budget
        self.reserved = 0
        self.used = 0
        self.peak_reserved = 0
        self.peak_used = 0
        # Free blocks as (size, order, block), small and large apart; order replaces the address, and as no two blocks
        # share one, comparing the tuples never reaches the block.
        self._free: dict[bool, list[_Free]] = {True: [], False: []}
        self._order = 0

    def allocate(self, size: int) -> _Block:
        """Take `size` bytes; raises `OutOfMemory`."""
        rounded = -(-size // _ROUND) * _ROUND or _ROUND
        small = rounded <= _SMALL
        # The smallest free block that is large enough.
        pool = self._free[small]
        place = bisect_left(pool, (rounded,))
        if place == len(pool):
            block = self._new_segment(rounded, small)
        else:
            block = pool.pop(place)[2]
            block.free = False
        if block.size - rounded >= (_ROUND if small else _SMALL + 1):
            self._split(block, rounded)
        self.used += block.size
        if self.used > self.peak_used:
            self.peak_used = self.used
        return block

    def borrow(self, size: int) -> None:
        """Take `size` bytes and release them immediately; raises `OutOfMemory`."""
        rounded = -(-size // _ROUND) * _ROUND or _ROUND
        small = rounded <= _SMALL
        pool = self._free[small]
        place = bisect_left(pool, (rounded,))
        if place == len(pool):
            self.release(self.allocate(size))
            return
        # The block is whole again afterwards: only the peak can change.
        found = pool[place][0]
        splits = found - rounded >= (_ROUND if small else _SMALL + 1)
        self.peak_used = max(self.peak_used, self.used + (rounded if splits else found))

    def _new_segment(self, size: int, small: bool) -> _Block:
        if small:
            segment = _SMALL_SEGMENT
        elif size < _MEDIUM:
            segment = _MEDIUM_SEGMENT
        else:
            segment = -(-size // _LARGE_ROUND) * _LARGE_ROUND
        if self._budget is not None and self.reserved + segment > self._budget:
            self._release_cached()
            if self.reserved + segment > self._budget:
                raise OutOfMemory
        self.reserved += segment
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self._order += 1 << 32
        return _Block(segment, small, self._order, self._order)

    def _split(self, block: _Block, size: int) -> None:
        rest = _Block(block.size - size, block.small, block.segment, block.order + size)
        rest.before, rest.after = block, block.after
        if rest.after is not None:
            rest.after.before = rest
        block.after, block.size = rest, size
        self._put(rest)

    def release(self, block: _Block) -> None:
        self.used -= block.size
        for neighbour in (block.before, block.after):
            if neighbour is None or not neighbour.free:
                continue
            pool = self._free[block.small]
            del pool[bisect_left(pool, (neighbour.size, neighbour.order))]
            neighbour.free = False
            if neighbour is block.before:
                neighbour.size += block.size
                neighbour.after = block.after
                if block.after is not None:
                    block.after.before = neighbour
                block = neighbour
            else:
                block.size += neighbour.size
                block.after = neighbour.after
                if block.after is not None:
                    block.after.before = block
        self._put(block)

    def _put(self, block: _Block) -> None:
        block.free = True
        insort(self._free[block.small], (block.size, block.order, block))

    def _release_cached(self) -> None:
        for pool in self._free.values():
            whole = [entry for entry in pool if entry[2].before is None and entry[2].after is None]
            for entry in whole:
                pool.remove(entry)
                self.reserved -= entry[0]


def replay(events: Sequence[Event], budget: int | None = None, workspace: float = 0.0) -> Allocator:
    """Run events through an allocator; raises `OutOfMemory` if they exceed the budget.

    `workspace` is what a convolution asks for while it runs, in bytes a byte of its feature maps. It is soft, as
    cuDNN's: halved until there is room, and none at last.
    """
    allocator = Allocator(budget)
    held: list[_Block | None] = []
    for kind, value in events:
        if kind == "+":
            # An empty tensor takes no memory.
            held.append(allocator.allocate(value) if value else None)
        elif kind == "-":
            block = held[value]
            if block is not None:
                allocator.release(block)
                held[value] = None
        elif workspace:
            wanted = int(value * workspace)
            while wanted > MIB:
                try:
                    allocator.borrow(wanted)
                    break
                except OutOfMemory:
                    wanted //= 2
    return allocator


def floor(events: Sequence[Event], tolerance: float = 0.01) -> int:
    """Return the smallest budget in bytes, to `tolerance`, in which the events run without workspace."""
    events = [event for event in events if event[0] != "w"]
    free = replay(events)
    low, high = free.peak_used, free.peak_reserved
    try:
        replay(events, low)
        return low
    except OutOfMemory:
        pass
    while high - low > tolerance * high:
        middle = (low + high) // 2
        try:
            replay(events, middle)
            high = middle
        except OutOfMemory:
            low = middle
    return high
