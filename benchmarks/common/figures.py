"""What a program has found: figures, their bars, tables; printed as text or as JSON."""

import argparse
import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import NoReturn


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed; NaN for none at all."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def shown(value: float) -> str:
    """Write a number with as many digits as a reader can use."""
    if float(value).is_integer() or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


@dataclass(frozen=True, slots=True)
class Sample:
    """What a figure was in each round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The value in the middle; NaN for none at all."""
        return statistics.median(self.values) if self.values else math.nan

    def over(self, other: "Sample") -> "Sample":
        """Return the ratios, round by round: what slowed a round down slowed both down."""
        return Sample(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def __str__(self) -> str:
        if not self.values:
            return "-"
        return f"{shown(self.median)} ({shown(min(self.values))}-{shown(max(self.values))})"


@dataclass
class Table:
    """Samples side by side: a column for each side or ratio, a row for each condition."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[Sample]]] = field(default_factory=list)

    def row(self, label: str, *cells: Sample) -> None:
        """Add a row."""
        self.rows.append((label, list(cells)))

    def __str__(self) -> str:
        lines = [["", *self.columns], *([label, *map(str, cells)] for label, cells in self.rows)]
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
        ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        text = [
            "| "
            + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
            + " |"
            for line in (lines[0], ruler, *lines[1:])
        ]
        return "\n".join([self.title, "", *text])

    def as_json(self) -> dict[str, object]:
        """Return it with every round's value."""
        rows = [
            {"row": label, **{c: s.values for c, s in zip(self.columns, cells, strict=True)}}
            for label, cells in self.rows
        ]
        return {"title": self.title, "rows": rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A result. ``bar`` is the most it may be, or the least; None for one that is only told."""

    what: str
    value: float
    unit: str = ""
    bar: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether it is on the right side of its bar; a NaN is on no side."""
        if self.bar is None:
            return True
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def __str__(self) -> str:
        measured = f"{shown(self.value)} {self.unit}".rstrip()
        if self.bar is None:
            return f"{self.what}: {measured}"
        sign = ">=" if self.at_least else "<="
        met = "met" if self.holds else "MISSED"
        return f"bar {self.what} {sign} {self.bar:g}: {met}, measured {measured}"


@dataclass
class Report:
    """What a program has found."""

    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def table(self, title: str, *columns: str) -> Table:
        """Add a table; its rows come later."""
        self.tables.append(Table(title, list(columns)))
        return self.tables[-1]

    def fact(self, what: str, value: float, unit: str = "") -> None:
        """Add a figure without a bar."""
        self._add(Figure(what=what, value=value, unit=unit))

    def most(self, what: str, value: float, bar: float, unit: str = "") -> None:
        """Add a figure that must not be above its bar."""
        self._add(Figure(what=what, value=value, unit=unit, bar=bar))

    def least(self, what: str, value: float, bar: float, unit: str = "") -> None:
        """Add a figure that must not be below its bar."""
        self._add(Figure(what=what, value=value, unit=unit, bar=bar, at_least=True))

    def times(self, what: str, seconds: Sequence[float], bar: float) -> None:
        """Add durations, in milliseconds: their median, p99 (which has the bar) and worst."""
        found = [value * 1000 for value in seconds]
        self.fact(f"{what}, median of {len(found)}", percentile(found, 0.5), "ms")
        self.most(f"{what}, p99", percentile(found, 0.99), bar, "ms")
        self.fact(f"{what}, worst", max(found, default=float("nan")), "ms")

    def _add(self, figure: Figure) -> None:
        self.figures.append(figure)

    @property
    def missed(self) -> list[str]:
        """The figures that are on the wrong side of their bars."""
        return [str(figure) for figure in self.figures if not figure.holds]

    def close(self, settings: argparse.Namespace) -> NoReturn:
        """Print everything and end the process: 1 if a bar was missed."""
        asked = {key: value for key, value in vars(settings).items() if value is not None}
        if asked.pop("json", False):
            found = [{**asdict(figure), "holds": figure.holds} for figure in self.figures]
            tables = [table.as_json() for table in self.tables]
            print(json.dumps({"asked": asked, "tables": tables, "figures": found}))
        else:
            machine = f"Python {platform.python_version()}, {os.cpu_count()} cores"
            print(f"{' '.join(f'{key}={value}' for key, value in asked.items())}; {machine}")
            print("".join(f"\n{table}\n" for table in self.tables))
            print("\n".join(map(str, self.figures)))
        sys.exit(bool(self.missed))


def arguments(text: str | None) -> argparse.ArgumentParser:
    """Return a parser with what all programs take."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    return parser
