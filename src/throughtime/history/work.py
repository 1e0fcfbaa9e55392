"""How much a certificate may do, in numbers gone through and not in seconds.

The result is then the same however fast the machine is and whatever else it does. The rate is so
cautious that a certificate takes well under half of its time limit on one core of 2020.
"""

from __future__ import annotations

from throughtime.runtime import out_of_time

NUMBERS_PER_SECOND = 2e8


class Work:
    """A budget, spent by those who work: see above.

    limit: numbers that may be gone through.
    """

    def __init__(self, limit: float) -> None:
        self.limit, self.spent = limit, 0.0

    @classmethod
    def of(cls, seconds: float) -> Work:
        """What takes so many seconds at most."""
        return cls(seconds * NUMBERS_PER_SECOND)

    def spend(self, numbers: float) -> None:
        """Notes what was done."""
        self.spent += numbers

    @property
    def over(self) -> bool:
        """Whether nothing new is to be begun."""
        return self.spent >= self.limit or out_of_time()

    @property
    def seconds(self) -> float:
        """What is left, in seconds."""
        return max(0.0, self.limit - self.spent) / NUMBERS_PER_SECOND
