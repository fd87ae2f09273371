"""The rules of ``run --processes``, by enumeration: counts, deaths, pauses, exit codes."""

import itertools
import signal

import pytest
from cli_process import cli

from trio_dagnats.cli.exits import Exit
from trio_dagnats.cli.processes import rules
from trio_dagnats.cli.processes.count import Processes, within


def test_pauses_between_deaths_begin_with_none_and_grow_to_the_longest() -> None:
    pauses = [rules.pause(deaths) for deaths in range(1, 10)]

    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert rules.pause(10_000_000) == rules.LONGEST_PAUSE


def test_a_process_that_lived_long_dies_for_the_first_time_again() -> None:
    lives = [0.0, 59.9, 60.0, 1.0, 3600.0]
    deaths = itertools.accumulate(lives, rules.deaths, initial=0)

    assert list(deaths) == [0, 1, 2, 1, 2, 1]


@pytest.mark.parametrize("code", [*Exit, 1, 137, 139, 255])
def test_only_what_cannot_begin_ends_all_and_only_when_nobody_serves(code: int) -> None:
    assert rules.hopeless(code, others_serve=False) == (code in {Exit.USAGE, Exit.NO_ENGINE})
    assert not rules.hopeless(code, others_serve=True)


@pytest.mark.parametrize("number", range(1, 65))
def test_a_signal_is_an_exit_code_as_a_shell_has_it(number: int) -> None:
    assert rules.exit_code(-number) == 128 + number
    assert rules.exit_code(-number, told=True) == (0 if number == signal.SIGTERM else 128 + number)
    assert rules.exit_code(number, told=True) == number


@pytest.mark.parametrize(
    ("grace", "seconds"), [(0.0, 9.5), (5.0, 9.5), (5.1, 9.6), (25.0, 29.5), (600.0, 604.5)]
)
def test_a_drain_of_25_s_of_grace_fits_into_the_30_s_of_kubernetes(
    grace: float, seconds: float
) -> None:
    assert rules.patience(grace) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("returncode", "pause", "text"),
    [
        (0, 0.0, "ended with exit code 0; it starts again at once"),
        (-9, 0.5, "was killed by SIGKILL; it starts again in 0.5 s"),
        (-50, 30.0, "was killed by signal 50; it starts again in 30 s"),
    ],
)
def test_a_death_is_one_sentence(returncode: int, pause: float, text: str) -> None:
    assert rules.obituary(returncode, pause) == text


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("", 8),
        ("max 100000", 8),
        ("200000 100000", 2),
        ("250000 100000", 3),
        ("5000 100000", 1),
        ("9900000 100000", 8),
        ("1 0", 8),
        ("nonsense", 8),
    ],
)
def test_a_container_has_the_cores_of_its_quota(quota: str, cores: int) -> None:
    assert within(quota + "\n", 8) == cores


@pytest.mark.parametrize("text", ["0", "-1", "100000", "two", "1.5", "", "1e3"])
def test_a_number_that_cannot_be_meant_is_one_sentence(text: str) -> None:
    done = cli("run", "--processes", text)

    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert f"{text!r} is no number of processes for this machine; give 1 to " in line
    assert "or auto for one per usable core" in line


@pytest.mark.parametrize(("cores", "most"), [(1, 64), (8, 64), (96, 768)])
def test_more_processes_than_any_machine_needs_are_refused(cores: int, most: int) -> None:
    assert rules.most(cores) == most


def test_auto_is_at_least_one_and_legal_itself() -> None:
    number = Processes().convert("auto", None, None)

    assert number >= 1
    assert Processes().convert(str(number), None, None) == number
