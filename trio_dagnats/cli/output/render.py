"""Runs, steps and workers as tables, trees and lines. Pure: values in, renderables out.

A run looks like this::

    greet  4f1c...  failed  3.21 s                 run_line
    ├── fetch  completed  0.25 s                   _step_line
    └── write  failed  2.90 s  2 attempts
        ├── attempt 1  failed  1.40 s  disk full   _attempt_line
        └── attempt 2  failed  1.50 s  disk full

Errors and outputs go through ``texts.one_line``, names of workflows and hosts in as ``Text``: no
markup is read in them, and no error text can colour, move or clear the terminal.

Times: ``now_ns`` is what a duration that goes on is counted to. All values of one picture are drawn
with the same one.
"""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from trio_dagnats.cli.output import texts
from trio_dagnats.client import (
    AttemptEnd,
    AttemptTimeline,
    RunTimeline,
    StepTimeline,
    WorkerAttempts,
    WorkflowRun,
)
from trio_dagnats.client.timeline import error_of, time_of
from trio_dagnats.wire.events import EventType, HistoryEvent
from trio_dagnats.wire.registration import WorkerRegistration
from trio_dagnats.wire.tree import lines as tree_lines

STYLES = {
    "completed": "green",
    "continued": "green",
    "recovered": "green",
    "failed": "bold red",
    "compensate_failed": "bold red",
    "running": "cyan",
    "queued": "cyan",
    "cancelled": "magenta",
    "compensated": "magenta",
    "unfinished": "magenta",
    "new": "green",
    "changed": "cyan",
    "refused": "bold red",
}
"""Readable on light and dark; words that are not here have no colour."""
ATTEMPTS_SHOWN = 20
"""Of one step; a loop may have thousands, and the newest are what is looked for."""


def status(word: str) -> Text:
    """Write a status in its colour.

    The word says all; colour only helps to find it, so a terminal without any loses nothing.
    """
    return Text(word, style=STYLES.get(word, ""))


def table(*columns: str) -> Table:
    """Make a table without lines; its first columns are never cut.

    The last column may be long (an error) and is folded; the others hold ids, which are copied.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        made.add_column(column, no_wrap=number < len(columns) - 1, overflow="fold")
    return made


def runs_table(runs: Sequence[WorkflowRun], now_ns: int, *, whole_ids: bool) -> Table:
    """List runs, one a line.

    Whole ids for what is no terminal: a program that reads them needs all of one.
    """
    made = table("RUN", "WORKFLOW", "STATUS", "STARTED", "TOOK", "ERROR")
    for run in runs:
        started_ns, ended_ns = time_of(run.created_at), time_of(run.completed_at)
        step_id, error = run.failed_step()
        made.add_row(
            run.run_id if whole_ids else texts.short(run.run_id),
            Text(run.workflow_id),
            status(run.status.value),
            texts.date(started_ns),
            texts.between(started_ns, ended_ns, now_ns),
            Text(texts.one_line(f"{step_id}: {error}") if step_id else ""),
        )
    return made


def workers_table(workers: Sequence[WorkerRegistration]) -> Table:
    """List workers, one a line.

    The host and the process are there to find it with ``ssh`` and ``kill``; not all tell a pid.
    """
    made = table("WORKER", "LANGUAGE", "HOST", "PID", "SERVES")
    for found in workers:
        made.add_row(
            found.worker_id,
            found.language,
            Text(found.hostname),
            str(found.pid or texts.NOTHING),
            Text(", ".join(sorted(found.task_types))),
        )
    return made


def worker_attempts(found: WorkerAttempts) -> Text:
    """Draw a worker's attempts, each with the tree of its tasks.

    A worker without an answer is drawn in red with the three things that it can mean; which one
    it is cannot be known from here.
    """
    where = f"  {found.hostname}  pid {found.pid}" if found.pid else ""
    drawn = Text.assemble((found.worker_id, "bold"), where)
    if found.attempts is None:
        silence = (
            "  does not answer: it has died, its event loop is blocked, or it may not be asked"
        )
        return drawn.append(silence, STYLES["failed"])
    drawn.append(f"  {len(found.attempts)} in flight")
    for attempt in found.attempts:
        for line in tree_lines(attempt):
            drawn.append(f"\n  {line}")
    return drawn


def run_tree(
    found: RunTimeline, now_ns: int, *, whole_ids: bool = True, most: int = ATTEMPTS_SHOWN
) -> Tree:
    """Draw a run with its steps and their attempts, at most so many of each step.

    ``whole_ids`` is for a single run, whose id is copied; the live view of ``dev`` shortens
    them, and shows fewer attempts (``most``).
    """
    tree = Tree(run_line(found, now_ns, whole_ids=whole_ids), guide_style="")
    for step in found.steps:
        branch = tree.add(_step_line(step, now_ns))
        for line in _attempt_lines(step, now_ns, most):
            branch.add(line)
    return tree


def run_line(found: RunTimeline, now_ns: int, *, whole_ids: bool = True) -> Text:
    """Write a run as one line.

    The same line is the head of :func:`run_tree` and, in ``dev``, all that is shown of an old
    run.
    """
    run = found.run
    return Text.assemble(
        (run.workflow_id, "bold"),
        "  ",
        run.run_id if whole_ids else texts.short(run.run_id),
        "  ",
        status(run.status.value),
        f"  {texts.between(found.started_ns, found.ended_ns, now_ns)}",
    )


def _step_line(step: StepTimeline, now_ns: int) -> Text:
    """Write a step as one line: id, status, how long, what is special, and its error.

    The error stands here only if no attempt's line has it.
    """
    line = Text.assemble((step.id, "bold"), "  ", status(step.state.status.value))
    if step.begun_ns is not None:
        line.append(f"  {texts.between(step.begun_ns, step.ended_ns, now_ns)}")
    for remark in _remarks(step):
        line.append(f"  {remark}")
    if step.state.error and not _shown_attempts(step):
        line.append(f"  {texts.one_line(step.state.error)}", STYLES["failed"])
    return line


def _remarks(step: StepTimeline) -> list[str]:
    """Say what is special about a step: its type, how far it is, whose run it has begun.

    One count only, the one that fits: items of a map, iterations of a loop, or attempts. The
    iterations in a snapshot are those that have ended, so the one that goes on is added.
    """
    remarks = [step.type] if step.type not in {"", "normal"} else []
    if step.state.map_instances:
        done = sum(i.status.is_done for i in step.state.map_instances)
        remarks.append(f"{done} of {len(step.state.map_instances)}")
    elif step.state.iterations:
        remarks.append(f"{step.state.iterations + 1} iterations")
    elif len(step.attempts) > 1:
        remarks.append(f"{len(step.attempts)} attempts")
    if step.state.child_run_id:
        remarks.append(f"child {step.state.child_run_id}")
    return remarks


def _shown_attempts(step: StepTimeline) -> list[AttemptTimeline]:
    """Return the attempts that say more than the step's own line.

    Of a map only failures: a line for each of its items would hide everything else. One attempt
    alone repeats its step's line, unless it failed or was started several times.
    """
    if step.state.map_instances:
        return [a for a in step.attempts if a.end is AttemptEnd.FAILED]
    if len(step.attempts) == 1:
        only = step.attempts[0]
        return [only] if only.error or only.starts > 1 else []
    return list(step.attempts)


def _attempt_lines(step: StepTimeline, now_ns: int, most: int) -> list[Text]:
    """Write attempts, the newest ``most`` of them, and how many are left out."""
    shown = _shown_attempts(step)
    names = _names(step, shown)
    lines = [_attempt_line(n, a, now_ns) for n, a in zip(names, shown, strict=True)]
    hidden = len(lines) - most
    return [Text(f"{hidden} earlier"), *lines[hidden:]] if hidden > 0 else lines


def _names(step: StepTimeline, shown: Sequence[AttemptTimeline]) -> list[str]:
    """Name attempts by what tells them apart: iteration, instance, number.

    An iteration is counted from the ends of attempts, because retries of one have their number
    in the event and no iteration: after one that has continued the next iteration begins.
    """
    names: list[str] = []
    iteration = 1
    for attempt in shown:
        name = f"attempt {attempt.number}"
        if step.state.iterations:
            name = f"iteration {iteration}" + (f" {name}" if attempt.number > 1 else "")
            iteration += attempt.end is AttemptEnd.CONTINUED
        elif attempt.step_id != step.id:
            name = f"{attempt.step_id.removeprefix(f'{step.id}.')} {name}"
        names.append(name)
    return names


def _attempt_line(name: str, attempt: AttemptTimeline, now_ns: int) -> Text:
    """Write an attempt: its name, how it stands, how long, how often it was started, its error."""
    took = texts.between(attempt.started_ns, attempt.ended_ns, now_ns)
    line = Text.assemble(name, "  ", status(attempt.end.value), f"  {took}")
    if attempt.starts > 1:
        line.append(f"  started {attempt.starts} times")
    if attempt.error:
        line.append(f"  {texts.one_line(attempt.error)}", STYLES["failed"])
    return line


def event_line(event: HistoryEvent, *, run: str = "") -> Text:
    """Write an event as one line; with the run's name in front if there are several.

    Columns have fixed widths, as lines come one at a time and nobody knows the next; a longer
    name pushes the rest of its own line only.
    """
    kind = event.type.rpartition(".")[2]
    line = Text(texts.moment(event.timestamp_ns))
    if run:
        line.append(f"  {run}")
    line.append(f"  {event.step_id or 'run':<14}  ")
    line.append(f"{event.type:<18}", STYLES.get(kind, ""))
    said = _said(event)
    if said:
        line.append(f"  {said}", STYLES["failed"] if kind == "failed" else "")
    # Without the blanks that fill the last column.
    return Text(line.plain.rstrip(), spans=line.spans)


def chunk_line(step_id: str, data: bytes, now_ns: int) -> Text:
    """Write a stream chunk as one line.

    It has the columns of :func:`event_line`, with ``stream`` in place of the event's type.
    """
    text = texts.one_line(data.decode(errors="replace"))
    return Text(f"{texts.moment(now_ns)}  {step_id:<14}  {'stream':<18}  {text}")


def _said(event: HistoryEvent) -> str:
    """Say what an event's payload tells a person; mostly that is nothing.

    Attempts are numbered from the second one on: the first is what everybody expects.
    """
    attempt = f"attempt {event.attempt_number}  " if (event.attempt_number or 1) > 1 else ""
    if event.type == EventType.STEP_FAILED:
        return attempt + texts.one_line(error_of(event))
    if event.type == EventType.STEP_COMPLETED:
        return attempt + texts.one_line(event.payload.decode(errors="replace"))
    return attempt.rstrip()
