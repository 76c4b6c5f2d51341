"""What a terminal shows of a run: the plan as a live tree, the answer, the bill."""

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from r2reasoner.bill import Bill, show_money
from r2reasoner.cli.ledger import foreign
from r2reasoner.events import (
    Allocated,
    Event,
    FellBack,
    Planned,
    SubtaskFailed,
    SubtaskFinished,
    SubtaskStarted,
)
from r2reasoner.types import Allocation, AnswerStatus, Plan, Role, Step, Trace


class PlanView:
    """A run as a tree that grows while events come in."""

    def __init__(self, query: str) -> None:
        self._query = query
        self._plan: Plan | None = None
        self._notes: tuple[str, ...] = ()
        self._allocation: Allocation | None = None
        self._running: dict[int, str] = {}
        self._steps: dict[int, Step] = {}
        self._fell_back: dict[int, list[str]] = {}
        self._trace: Trace | None = None

    @classmethod
    def of(cls, trace: Trace) -> "PlanView":
        """Return the view of a finished run."""
        view = cls(trace.query.text)
        view._plan, view._notes = trace.plan, trace.plan_notes
        view._allocation = trace.allocation
        view.finish(trace)
        return view

    def take(self, event: Event) -> None:
        """Take an event in."""
        match event:
            case Planned(plan, notes, _):
                self._plan, self._notes = plan, notes
            case Allocated(allocation):
                self._allocation = allocation
            case SubtaskStarted(subtask, model, _):
                self._running[subtask] = model
            case SubtaskFinished(step) | SubtaskFailed(step):
                self._steps[step.subtask] = step
            case FellBack(subtask, before, after, reason):
                self._fell_back.setdefault(subtask, []).append(f"{before} → {after}: {reason}")

    def finish(self, trace: Trace) -> None:
        """Take the finished trace in, which knows tokens and costs."""
        self._trace = trace
        self._steps = {step.subtask: step for step in trace.steps}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render as it stands."""
        yield self._tree()

    def _tree(self) -> Tree:
        tree = Tree(Text(_cut(self._query, 200), style="bold"))
        if self._plan is None:
            tree.add("[dim]planning…[/]")
            return tree
        head = (
            "answered directly" if self._plan.is_direct else f"{len(self._plan.subtasks)} subtasks"
        )
        if self._trace is not None:
            head += f" · plan {self._role_line(Role.DECOMPOSER)}"
        branch = tree.add(f"[cyan]{escape(head)}[/]")
        for note in self._notes:
            if "repaired" in note or "answered directly" in note:
                branch.add(f"[yellow]{escape(note)}[/]")
        if self._allocation is not None and not self._allocation.calibrated:
            branch.add(f"[dim]models by {escape(self._allocation.allocator)}, uncalibrated[/]")
        for number, subtask in enumerate(self._plan.subtasks, 1):
            node = branch.add(self._subtask_line(number, subtask.text))
            for line in self._fell_back.get(number, ()):
                node.add(f"[yellow]fell back {escape(line)}[/]")
        if not self._plan.is_direct:
            branch.add(f"[dim]answer = {escape(self._plan.answer)}[/]")
        return tree

    def _role_line(self, role: Role) -> str:
        assert self._trace is not None
        calls = [c for c in self._trace.calls if c.role is role]
        if not calls:
            return "no model call"
        tokens = sum(c.usage.input_tokens + c.usage.output_tokens for c in calls)
        plural = "s" if len(calls) > 1 else ""
        return (
            f"by {calls[0].model}, {len(calls)} call{plural}, {tokens} tokens,"
            f" {show_money(self._trace.cost(role))}"
        )

    def _subtask_line(self, number: int, text: str) -> Text:
        step = self._steps.get(number)
        line = Text(f"#{number} ", style="bold")
        line.append(_cut(text, 80), style="default")
        choice = self._allocation.choices[number - 1] if self._allocation else None
        model = step.model if step else self._running.get(number, choice.model if choice else None)
        if model:
            line.append(f"  {model}", style="magenta")
        if step is None:
            state = "…" if number in self._running else "waiting"
            return line.append(f"  {state}", style="dim")
        if step.answer is None:
            return line.append(f"  failed: {_cut(step.error or '', 100)}", style="red")
        line.append(f"  → {_cut(step.answer, 100)}", style="green")
        return line.append(self._figures(number, step), style="dim")

    def _figures(self, number: int, step: Step) -> str:
        seconds = f"{(step.finished_s - step.started_s) * 1000:.0f} ms"
        if self._trace is None:
            return f"  {seconds}"
        calls = [c for c in self._trace.calls if c.subtask == number]
        if not calls:
            return "  joined, no call"
        tokens = sum(c.usage.input_tokens + c.usage.output_tokens for c in calls)
        costs = [c.cost for c in calls]
        known = [c for c in costs if c is not None]
        cost = show_money(sum(known) if len(known) == len(costs) else None)
        return f"  {tokens} tokens · {cost} · {seconds}"


def print_answer(trace: Trace, console: Console) -> None:
    """Print the answer, and a mark where it is not whole."""
    answer = trace.answer
    if answer.status is AnswerStatus.FAILED:
        console.print(f"[bold red]no answer:[/] {escape(answer.note or '')}")
        return
    line = Text.assemble(("answer  ", "bold green"), foreign(answer.text))
    console.print(line, soft_wrap=not console.is_terminal)
    if answer.status is not AnswerStatus.COMPLETE:
        console.print(f"[yellow]{answer.status}: {escape(answer.note or '')}[/]")


def print_bill(trace: Trace, bill: Bill, console: Console) -> None:
    """Print the bill by role, and the strongest model's estimate beside it."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    for column in ("bill", "calls", "tokens in", "tokens out", "cost"):
        table.add_column(column, justify="left" if column == "bill" else "right")
    for line in bill.lines:
        table.add_row(
            line.role,
            str(line.calls),
            f"{line.usage.input_tokens:,}",
            f"{line.usage.output_tokens:,}",
            show_money(line.cost),
        )
    table.add_row("total", "", "", "", show_money(bill.total), style="bold")
    console.print(table)
    facts = [f"{trace.wall_s * 1000:.0f} ms"]
    if bill.saved is not None:
        word = "less" if bill.saved >= 0 else "more"
        facts[:0] = [
            f"{bill.strongest} alone: about {show_money(bill.strongest_alone)},"
            f" so {abs(bill.saved):.0%} {word} with the router billed"
        ]
    console.print(f"[dim]{escape(' · '.join(facts))}[/]")


def _cut(text: str, most: int) -> str:
    text = foreign(" ".join(text.split())).plain
    return text if len(text) <= most else f"{text[: most - 1]}…"
