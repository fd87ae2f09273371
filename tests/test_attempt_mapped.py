from trio_dagnats.attempt.mapped import Entry, decode, encode, fingerprint, finished

A, B = fingerprint("f", b"1"), fingerprint("f", b"2")


def test_an_entry_is_json_that_is_read_back() -> None:
    entry = Entry(A, b'{"x":[1,"}"]}\n')

    assert encode(entry) == b'{"item":"%b","value":{"x":[1,"}"]}\n}' % A.encode()
    assert decode(encode(entry)) == entry


def test_what_is_no_entry_is_none() -> None:
    for raw in (b"", b"null", b'{"item":"x","value":1}', encode(Entry(A, b"1"))[:-1]):
        assert decode(raw) is None


def test_a_fingerprint_tells_function_and_item() -> None:
    assert len({A, B, fingerprint("g", b"1"), fingerprint("f1", b"")}) == 4
    assert fingerprint("f", b"1") == A


def test_finished_is_what_is_the_same_item_at_the_same_place() -> None:
    stored = {0: encode(Entry(A, b"10")), 1: encode(Entry(B, b"20")), 2: b"?", 9: b"{}"}

    assert finished(stored, [A, B, A]) == {0: b"10", 1: b"20"}
    assert finished(stored, [B, A]) == {}
    assert finished(stored, [A]) == {0: b"10"}
    assert finished({}, [A]) == {}
