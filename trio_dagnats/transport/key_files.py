"""Files to log in with: read as a whole and looked into, at the start and at every login."""

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple, final

from trio_dagnats.errors import UsageError

_SEED = re.compile(r"\bS[A-Z2-7]{57}\b")
_JWT = re.compile(r"-----BEGIN NATS USER JWT-----\s+(\S+)\s")


@final
class Key(NamedTuple):
    """What a file holds; never shown.

    Attributes:
        seed: the nkey seed.
        jwt: the JWT of a credentials file, empty in a file with a seed only.
    """

    seed: str
    jwt: str

    def __repr__(self) -> str:
        return "<Key>"


def read_key(path: Path, *, jwt: bool) -> Key:
    """Read a file with a key; nats-py's insides would tell badly what is wrong with it, or hang.

    Args:
        path: the file.
        jwt: whether it has to hold a JWT as well.

    Raises:
        UsageError: no such file, or it holds no usable key.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r} to log in with")
    if importlib.util.find_spec("nkeys") is None:
        raise UsageError("logging in with a key needs `pip install 'trio-dagnats[nkeys]'`")
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise UsageError(f"the file {str(path)!r} cannot be read: {error.strerror}") from error
    seed, found = _SEED.search(text), _JWT.search(text) if jwt else None
    if seed is None or not _is_seed(seed[0]) or (jwt and found is None):
        what = "a JWT and its nkey seed (`nsc generate creds`)" if jwt else "an nkey seed (SU...)"
        raise UsageError(f"the file {str(path)!r} does not hold {what}")
    return Key(seed[0], found[1] if found is not None else "")


def _is_seed(text: str) -> bool:
    import nkeys  # noqa: PLC0415 - loaded by those only who log in with it

    try:
        nkeys.from_seed(bytearray(text.encode())).wipe()
    except (nkeys.NkeysError, ValueError):
        return False
    return True
