"""What can be said of any exception, whatever its class makes of its name, text and attributes.

Handlers raise what they like. Nothing here fails because of it, or takes for ever.
"""

from collections.abc import Iterator

MAX_TEXT = 100_000
"""Characters that are taken of an exception's text: one may be as long as the memory allows."""
MAX_DEPTH = 20
"""Groups in groups of which a traceback is written: Python shows ten, but recurses into all."""

# The interpreter's own view: a class may define its attributes anew, and badly.
_class_name = type.__dict__["__name__"].__get__
_members = vars(BaseExceptionGroup)["exceptions"].__get__
_cause = vars(BaseException)["__cause__"].__get__
_context = vars(BaseException)["__context__"].__get__


def leaves(err: BaseException) -> Iterator[BaseException]:
    """Yield an exception, or what is grouped in it at any depth, once each and in their order.

    A stack and not a recursion: groups may be nested deeper than Python recurses.
    """
    seen: set[int] = set()
    todo = [err]
    while todo:
        found = todo.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if issubclass(type(found), BaseExceptionGroup):
            todo.extend(reversed(_members(found)))
        else:
            yield found


def is_traceable(err: BaseException) -> bool:
    """Say whether a traceback of it can be written.

    Python recurses into groups, once for each way on which a member can be reached: what is nested
    deeply or shares its members would never come to an end.
    """
    seen: set[int] = set()
    todo = [(err, 0)]
    while todo:
        found, depth = todo.pop()
        seen.add(id(found))
        if issubclass(type(found), BaseExceptionGroup):
            members = _members(found)
            if depth == MAX_DEPTH or not seen.isdisjoint(map(id, members)):
                return False
            todo.extend((member, depth + 1) for member in members)
        chained = (_cause(found), _context(found))
        todo.extend((e, depth) for e in chained if e is not None and id(e) not in seen)
    return True


def text_of(value: object) -> str:
    """Return ``str(value)``, at most ``MAX_TEXT`` characters of it, lone surrogates escaped.

    Never fails, for a bad ``__str__`` of one exception must harm nobody else: then the text says
    what the method has raised.
    """
    try:
        text = str.__str__(str(value))[:MAX_TEXT]
        return text.encode(errors="backslashreplace").decode()
    except BaseException as bad:
        if is_interrupt(bad):
            raise
        return f"its text cannot be read: __str__ raised {class_name(bad)}"


def class_name(value: object) -> str:
    """Return the name of a value's class, whatever the class makes of its ``__name__``."""
    name: str = _class_name(type(value))
    return name or "an exception whose class has no name"


def is_interrupt(err: BaseException) -> bool:
    """Say whether it is a Ctrl-C, and not a ``KeyboardInterrupt`` that some code has raised.

    trio's signal handler raises a Ctrl-C in the frame that it interrupts, or in the main task's
    checkpoint. So the innermost frame of the traceback is one of trio's own.
    """
    if type(err) is not KeyboardInterrupt or err.__traceback__ is None:
        return False
    trace = err.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__")).startswith("trio._core.")
