"""Credentials as an operator gives them out: signed here, so that a test may let them expire."""

import base64
import json
import os
import time

import nkeys

UNLIMITED = {
    **dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1),
    **dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1),
    "wildcards": True,
}


class Party:
    """Somebody with a key."""

    def __init__(self, prefix: int) -> None:
        self.seed: bytes = nkeys.encode_seed(os.urandom(32), prefix)
        self.public: str = nkeys.from_seed(bytearray(self.seed)).public_key.decode()

    def sign(self, whom: "Party", kind: str, claims: dict[str, object], until: float = 0) -> str:
        """Return a JWT about somebody, without an end or until a time of the wall clock."""
        body = {
            "iat": int(time.time()),
            "iss": self.public,
            "sub": whom.public,
            "name": kind,
            "nats": {**claims, "type": kind, "version": 2},
            **({"exp": int(until)} if until else {}),
        }
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        text = ".".join(_encode(json.dumps(part).encode()) for part in (head, body))
        return f"{text}.{_encode(nkeys.from_seed(bytearray(self.seed)).sign(text.encode()))}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Operator:
    """An operator with one account, and users of it."""

    def __init__(self, **limits: int) -> None:
        self._account = Party(nkeys.PREFIX_BYTE_ACCOUNT)
        operator = Party(nkeys.PREFIX_BYTE_OPERATOR)
        system = Party(nkeys.PREFIX_BYTE_ACCOUNT)
        account = operator.sign(self._account, "account", {"limits": {**UNLIMITED, **limits}})
        # The system's may have no JetStream.
        none = {**UNLIMITED, "mem_storage": 0, "disk_storage": 0}
        its = operator.sign(system, "account", {"limits": none})
        self.config = (
            f"operator: {operator.sign(operator, 'operator', {})}\nresolver: MEMORY\n"
            f"system_account: {system.public}\nresolver_preload: {{\n"
            f"{self._account.public}: {account}\n{system.public}: {its}\n}}\n"
        )

    def credentials(self, until: float = 0) -> str:
        """Return the text of a file for a new user, who may log in until a time."""
        user = Party(nkeys.PREFIX_BYTE_USER)
        claims = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}
        jwt = self._account.sign(user, "user", claims, until)
        return credentials(jwt, user.seed.decode())


def credentials(jwt: str, seed: str) -> str:
    """Return the text of a file with both."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
