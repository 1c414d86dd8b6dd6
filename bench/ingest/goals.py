"""What is wanted, beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from bench.report import Report


@dataclass(frozen=True)
class Goal:
    """One figure: met if it is at least (or, with `most`, at most) the wanted one."""

    what: str
    measured: float | None
    wanted: float
    unit: str = ""
    most: bool = False

    @property
    def row(self) -> tuple[str, str, str, str]:
        """For the table of goals."""
        wanted = f"{'at most' if self.most else 'at least'} {self.wanted:g}{self.unit}"
        if self.measured is None:
            return self.what, "not measured", wanted, ""
        met = self.measured <= self.wanted if self.most else self.measured >= self.wanted
        by = f"no, {abs(self.measured / self.wanted - 1):.0%} off" if self.wanted else "no"
        return self.what, f"{self.measured:.{0 if self.measured >= 100 else 2}f}{self.unit}", wanted, "yes" if met else by


def tell(report: Report, goals: list[Goal]) -> None:
    """The table of goals, at the end of the report."""
    report.table("Goals", ("What", "Measured", "Wanted", "Met"), [goal.row for goal in goals])
