"""Subject filters: ``*`` is one part, ``>`` is one or more at the end.

``wire.names.overlap`` asks another question: whether two *filters* have a subject in common.
"""


def matches(pattern: str, subject: str) -> bool:
    """Say whether a subject is one of those that a filter names."""
    if pattern == subject:
        return True
    wanted, found = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(found) > index
        if index >= len(found) or part not in {"*", found[index]}:
            return False
    return len(wanted) == len(found)
