"""What ran when: a line for each subtask, a bar for each call, over the time of one query."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, NamedTuple

from r2reasoner.gateway.dashboard.shown import one_line, seconds
from r2reasoner.report.chart import GLYPH, Linear, line, svg, text
from r2reasoner.types import Call, CallOutcome, Role, Trace

ROW: Final = 26.0
BAR: Final = 14.0
HEAD: Final = 24.0
LEAST: Final = 2.0
MOST_ROWS: Final = 200
AFTER: Final = 62.0
"""Room for a bar's duration behind it."""


class Bar(NamedTuple):
    """A stretch of time, in seconds since the query came. `kind` is its CSS class."""

    start: float
    end: float
    kind: str
    says: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what it is about, from when to when it was being done, and its calls."""

    name: str
    words: str
    whole: Bar | None
    bars: tuple[Bar, ...]
    link: str

    @property
    def end(self) -> float:
        """When the last of it ended, in seconds."""
        return max((bar.end for bar in (*self.bars, *filter(None, [self.whole]))), default=0.0)

    @property
    def start(self) -> float:
        """When it began, in seconds."""
        return min((bar.start for bar in (*self.bars, *filter(None, [self.whole]))), default=0.0)


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much ran at the same time: seconds of calls, seconds with a call, most at once."""

    in_calls_s: float
    with_calls_s: float
    most_at_once: int


def rows_of(trace: Trace) -> list[Row]:
    """Return the lines of a trace: planning, allocating, then each subtask that was begun."""
    rows = []
    for role, name in ((Role.DECOMPOSER, "plan"), (Role.ALLOCATOR, "allocate")):
        calls = [c for c in trace.calls if c.role is role]
        if calls:
            rows.append(Row(name, "", None, tuple(_bar(trace, c) for c in calls), "calls"))
    routing = (Role.DECOMPOSER, Role.ALLOCATOR)
    for step in trace.steps:
        calls = [c for c in trace.calls if c.subtask == step.subtask and c.role not in routing]
        begun, ended = _within(trace, step.started_s, step.finished_s)
        whole = Bar(begun, ended, "whole", f"subtask {step.subtask}: {seconds(ended - begun)}")
        bars = tuple(_bar(trace, call) for call in calls)
        rows.append(Row(f"#{step.subtask}", step.prompt, whole, bars, f"subtask-{step.subtask}"))
    return rows


def overlap(trace: Trace) -> Overlap:
    """Return how much of a trace ran in parallel."""
    spans = [(b.start, b.end) for call in trace.calls for b in (_bar(trace, call),)]
    edges = sorted([(s, 1) for s, _ in spans] + [(e, -1) for _, e in spans])
    open_now = most = 0
    busy = since = 0.0
    for at, change in edges:
        if open_now:
            busy += at - since
        open_now, since = open_now + change, at
        most = max(most, open_now)
    return Overlap(sum(e - s for s, e in spans), busy, most)


def draw_waterfall(rows: Sequence[Row], wall_s: float) -> str:
    """Return the lines as SVG, for wide and for narrow pages."""
    shown = rows[:MOST_ROWS]
    return _draw(shown, wall_s, 1040, 220, 6, "wide") + _draw(shown, wall_s, 358, 64, 3, "narrow")


def _draw(rows: Sequence[Row], wall_s: float, width: int, left: int, ticks: int, kind: str) -> str:
    height = HEAD + ROW * len(rows) + 4
    last = max(wall_s, *(row.end for row in rows), 1e-6) if rows else max(wall_s, 1e-6)
    scale = Linear(0.0, last, left, width - AFTER)
    parts = []
    for value in scale.ticks(ticks):
        x = scale(value)
        parts.append(line(x, HEAD - 6, x, height, "grid"))
        parts.append(text(x, HEAD - 11, _tick(value, last), "tick", "middle" if value else "start"))
    room = int((left - 44) / (GLYPH * 12)) if kind == "wide" else 0
    for i, row in enumerate(rows):
        parts += _row(row, HEAD + i * ROW, scale, room)
    says = "; ".join(f"{r.name} from {seconds(r.start)} to {seconds(r.end)}" for r in rows)
    drawn = svg(width, round(height), parts, says[:2000], f"waterfall {kind}")
    return drawn.replace('role="img"', 'role="group"', 1)


def _tick(value: float, last: float) -> str:
    if last < 2:
        return f"{value * 1000:,.4g} ms"
    return f"{value:,.4g} s"


def _row(row: Row, top: float, scale: Linear, room: int) -> Iterator[str]:
    base = top + ROW / 2 + 4
    name = text(0, base, row.name, "row-name")
    if room:
        words = text(row_words_x(row.name), base, one_line(row.words, room), "row-words")
    else:
        words = ""
    title = f"<title>{escape(one_line(row.words, 400) or row.name)}</title>"
    yield f'<a href="#{escape(row.link)}">{title}{name}{words}</a>'
    if row.whole is not None:
        yield _rect(row.whole, top, scale, BAR)
    for bar in row.bars:
        yield _rect(bar, top, scale, BAR - 4)
    yield text(scale(row.end) + 6, base, seconds(row.end - row.start), "tick")


def row_words_x(name: str) -> float:
    """Return where the words of a line begin."""
    return 28.0 if len(name) <= 3 else 62.0


def _rect(bar: Bar, top: float, scale: Linear, high: float) -> str:
    x = scale(bar.start)
    wide = max(LEAST, scale(bar.end) - x)
    return (
        f'<rect x="{x:.1f}" y="{top + (ROW - high) / 2:.1f}" width="{wide:.1f}"'
        f' height="{high:g}" rx="2" class="{bar.kind}"><title>{escape(bar.says)}</title></rect>'
    )


def _bar(trace: Trace, call: Call) -> Bar:
    begun = call.started_at - trace.started_at
    start, end = _within(trace, begun, begun + call.latency_s)
    kind = "routing" if call.role in (Role.DECOMPOSER, Role.ALLOCATOR) else "work"
    if call.outcome is not CallOutcome.OK:
        kind = "lost"
    says = f"{call.role.value}, {call.model}, try {call.attempt}: {call.outcome.value}"
    return Bar(start, end, kind, f"{says}, {seconds(call.latency_s)}")


def _within(trace: Trace, start: float, end: float) -> tuple[float, float]:
    """Return a stretch inside the query's time: clocks differ, and calls on record took longer."""
    start = min(max(start, 0.0), trace.wall_s)
    return start, min(max(end, start), trace.wall_s)
