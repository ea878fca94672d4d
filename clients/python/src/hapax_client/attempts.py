"""The attempts of one request: keeps count, time and budget; the transports send and wait."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Callable

from hapax_client.backoff import Budget
from hapax_client.policy import Answer, Attempt, Decision, Failure, Limits, judge


@dataclass(frozen=True)
class Timing:
    """The clocks (in seconds) and the dice; for tests."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    random: Callable[[], float] = random.random


@dataclass
class Attempts:
    """One request's attempts so far."""

    method: str
    key: str | None
    limits: Limits
    budget: Budget
    timing: Timing
    on_attempt: Callable[[int, Answer | Failure, Decision], None] | None = None
    made: int = 0
    maybe: bool = False
    paid: int = 0
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.timing.monotonic()

    def seconds(self) -> float:
        """Time that the next attempt may take, its answer included."""
        left = self.limits.deadline - (self.timing.monotonic() - self.begun)
        return max(0.001, min(self.limits.attempt, left))

    def judge(self, outcome: Answer | Failure) -> Decision:
        """Counts the attempt, pays for the next, and says what follows."""
        self.made += 1
        decision = judge(
            outcome,
            Attempt(
                method=self.method,
                keyed=self.key is not None,
                attempt=self.made,
                attempts=self.limits.attempts,
                maybe=self.maybe,
                tokens=self.budget.tokens,
                elapsed_ms=int((self.timing.monotonic() - self.begun) * 1000),
                deadline_ms=int(self.limits.deadline * 1000),
                now_ms=int(self.timing.wall() * 1000),
                random=self.timing.random(),
            ),
        )
        if decision.do == "retry":
            if not self.budget.take(decision.cost):
                # Another thread was faster with the last tokens.
                decision = Decision("unknown" if decision.maybe else "give_up", "budget")
            self.maybe, self.paid = decision.maybe, decision.cost
        elif decision.do == "final":
            self.budget.success(self.paid)
        if self.on_attempt is not None:
            self.on_attempt(self.made, outcome, decision)
        return decision


def nothing_ran(error: BaseException) -> BaseException:
    """Marks an error that is handed over because no attempt ran."""
    setattr(error, "hapax_nothing_ran", True)
    return error
