"""Which failures of a stage are mailed, for sequences of failures and successes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import (
    AccessDeniedError,
    BadQueryError,
    QualityError,
    ServerUnavailableError,
)
from headrace.orchestration.failing_stage import (
    MOST_CAUSES_A_DAY,
    MOST_RECOVERIES_A_DAY,
    QUIET,
    FailingStage,
    Failure,
    MailKind,
    Success,
    causes_of,
    decide,
    lately,
    read_recoveries,
    read_state,
    recoveries_json,
    recovers,
)

BEGIN = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
TOKEN = AccessDeniedError("InfluxDB answered 401")


class Stage:
    """A stage that counts the mails which Airflow's callbacks would send."""

    def __init__(self) -> None:
        self.state: FailingStage | None = None
        self.recoveries: tuple[datetime, ...] = ()
        self.mails: list[str] = []

    def fails(self, at: datetime, error: Exception, run: str = "", piece: int = -1) -> None:
        failure = Failure(at, run or at.isoformat(), piece, causes_of(error))
        decision = decide(self.state, failure, self.recoveries)
        # As stored in the Variable.
        self.state = read_state(decision.state.to_json())
        if decision.mail:
            self.mails.append(decision.mail.value)

    def succeeds(self, at: datetime, run: str = "", piece: int = -1) -> None:
        if self.state is None:
            return
        left = recovers(self.state, Success(at, run or at.isoformat(), piece))
        if left is None:
            self.mails.append("works again")
            self.recoveries = (*lately(self.state.recoveries, at), at)
        self.state = left


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_one_cause_is_mailed_once(stage: Stage) -> None:
    for minute in range(200):
        stage.fails(
            BEGIN + minute * MINUTE,
            ServerUnavailableError(f"window {BEGIN + minute * MINUTE} try {minute}"),
        )
    assert stage.mails == ["failed"]


def test_another_error_is_mailed_while_the_first_one_lasts(stage: Stage) -> None:
    stage.fails(BEGIN, TOKEN)
    stage.fails(BEGIN + MINUTE, BadQueryError("undefined identifier"))
    stage.fails(BEGIN + 2 * MINUTE, TOKEN)
    stage.fails(BEGIN + 3 * MINUTE, BadQueryError("undefined identifier"))
    assert stage.mails == ["failed", "failed for another reason"]


def test_a_second_failed_check_is_mailed_while_the_first_one_lasts(stage: Stage) -> None:
    stage.fails(BEGIN, QualityError("a", checks=("completeness",)))
    stage.fails(BEGIN + 15 * MINUTE, QualityError("b", checks=("completeness", "freshness")))
    stage.fails(BEGIN + 30 * MINUTE, QualityError("c", checks=("freshness",)))
    assert stage.mails == ["failed", "failed for another reason"]


def test_a_lasting_failure_is_mailed_once_a_day(stage: Stage) -> None:
    for minute in range(3 * 24 * 60):
        stage.fails(BEGIN + minute * MINUTE, TOKEN)
    assert stage.mails == ["failed", "still fails", "still fails"]


def test_a_failure_once_a_day_is_mailed_each_time(stage: Stage) -> None:
    for day in range(3):
        stage.fails(BEGIN + day * DAY, TOKEN)
    assert len(stage.mails) == 3


def test_recovery_is_mailed_once_and_the_next_failure_again(stage: Stage) -> None:
    stage.succeeds(BEGIN)
    stage.fails(BEGIN + MINUTE, TOKEN)
    stage.succeeds(BEGIN + 2 * MINUTE)
    stage.succeeds(BEGIN + 3 * MINUTE)
    stage.fails(BEGIN + 4 * MINUTE, TOKEN)
    assert stage.mails == ["failed", "works again", "failed"]


def test_failed_pieces_of_one_run_send_one_mail(stage: Stage) -> None:
    for piece in range(20):
        stage.fails(BEGIN, TOKEN, "run", piece)
    assert stage.mails == ["failed"]


def test_a_successful_piece_beside_a_failed_one_is_not_a_recovery(stage: Stage) -> None:
    stage.fails(BEGIN, TOKEN, "run", 0)
    stage.succeeds(BEGIN - MINUTE, "run", 1)
    stage.succeeds(BEGIN + MINUTE, "run", 2)
    stage.fails(BEGIN + 2 * MINUTE, TOKEN, "run", 3)
    stage.succeeds(BEGIN + 3 * MINUTE, "run", 4)
    assert stage.mails == ["failed"]
    # Both failed pieces are cleared and succeed.
    stage.succeeds(BEGIN + 4 * MINUTE, "run", 3)
    assert stage.mails == ["failed"]
    stage.succeeds(BEGIN + 5 * MINUTE, "run", 0)
    assert stage.mails == ["failed", "works again"]


def test_the_success_of_an_older_run_is_not_a_recovery(stage: Stage) -> None:
    stage.fails(BEGIN, TOKEN, "second")
    stage.succeeds(BEGIN - MINUTE, "first")
    assert stage.mails == ["failed"]


def test_mails_about_many_causes_are_limited(stage: Stage) -> None:
    words = [f"{chr(97 + first)}{chr(97 + second)}" for first in range(26) for second in range(26)]
    for number, word in enumerate(words):
        stage.fails(BEGIN + number * MINUTE, ServerUnavailableError(f"server {word}"))
    assert len(stage.mails) == MOST_CAUSES_A_DAY
    assert stage.state is not None
    assert len(stage.state.to_json()) < 20_000


def test_mails_about_an_alternating_stage_are_limited(stage: Stage) -> None:
    for minute in range(24 * 60):
        if minute % 2:
            stage.succeeds(BEGIN + minute * MINUTE)
        else:
            stage.fails(BEGIN + minute * MINUTE, TOKEN)
    assert stage.mails == [*["failed", "works again"] * MOST_RECOVERIES_A_DAY, "failed"]
    assert stage.state is not None
    assert stage.state.alternates
    stage.succeeds(stage.state.last + QUIET)
    assert stage.mails[-1] == "works again"


def test_a_clock_that_was_ahead_does_not_suppress_mails(stage: Stage) -> None:
    stage.fails(BEGIN + 30 * DAY, TOKEN)
    stage.fails(BEGIN, TOKEN)
    assert len(stage.mails) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "[2026-06-01T12:00:00Z, 2026-06-01T12:01:00Z)",
            "[2026-06-02T00:00:00Z, 2027-01-01T00:00:00Z)",
        ),
        ("3 s after 12:00:01.123456", "1500 s after 00:59:59.5"),
        ("pid 17 at 0x7f46b03944d0", "pid 4 at 0x1"),
        ("run 3f1c9d5e-8a0b-4c55-9f10-aa01b2c3d4e5", "run 00000000-8a0b-4c55-9f10-000000000000"),
        ("offset 12 of 13\nat line 5", "offset -1 of 9\nin another place"),
        ("id 0d1e9f4a55b1c0d2", "id ffff9f4a55b1c0d2"),
        ("generator12 is late", "generator7 is late"),
    ],
)
def test_numbers_times_and_ids_do_not_change_the_cause(one: str, other: str) -> None:
    assert causes_of(BadQueryError(one)) == causes_of(BadQueryError(other))


def test_types_and_words_change_the_cause() -> None:
    errors = [BadQueryError("x"), BadQueryError("y"), TOKEN, None, "the worker was lost"]
    assert len({causes_of(error) for error in errors}) == len(errors)


@settings(max_examples=50)
@given(st.text())
def test_any_variable_is_read_or_raises_a_value_error(text: str) -> None:
    for read in (read_state, read_recoveries):
        try:
            read(text)
        except ValueError:
            continue


def test_the_state_can_be_read_from_the_variable() -> None:
    state = decide(None, Failure(BEGIN, "run", 3, ("a", "b"))).state
    assert read_state(state.to_json()) == state
    assert read_recoveries(recoveries_json([BEGIN])) == (BEGIN,)
    assert decide(None, Failure(BEGIN, "run", 3, ("a", "b"))).mail is MailKind.FAILED
