"""How many failures are too many, and what is said then."""

import json

import pytest

from zaya_jax.environments.environment import Verdict
from zaya_jax.environments.failures import Failure, FailureLimit, Failures
from zaya_jax.errors import UserError

GOOD = Verdict(0.0, False, True)
BAD = Failure("sums", "raised", "ValueError: no")


def test_nothing_is_said_before_there_were_enough_calls_and_nothing_at_the_limit_itself():
    failures = Failures(FailureLimit(share=0.25, calls=4))
    for result in (BAD, BAD, BAD):  # three of three, but four have to be looked at
        failures.add("sums", result)
    failures = Failures(FailureLimit(share=0.25, calls=4))
    for result in (GOOD, GOOD, GOOD, BAD, GOOD, GOOD, GOOD, BAD):
        failures.add("sums", result)  # always one of the last four
    assert failures.counts == {"sums": {"calls": 8, "raised": 2}}


def test_too_many_name_the_environment_and_the_last_failure():
    failures = Failures(FailureLimit(share=0.25, calls=4))
    for result in (GOOD, GOOD, BAD):
        failures.add("sums", result)
    for _ in range(10):
        failures.add("other", GOOD)  # is another's matter
    with pytest.raises(UserError) as caught:
        failures.add("sums", Failure("sums", "timeout", "no reply within 2 s"))
    assert str(caught.value) == (
        "environment sums: fails too often; expected at most 25.0% of calls; found 2 of the last 4; the last: timeout: "
        "no reply within 2 s; try python -m experiments.environments --validate=sums"
    )


def test_one_that_breaks_late_is_noticed_soon():
    failures = Failures(FailureLimit(share=0.1, calls=20))
    for _ in range(100_000):
        failures.add("sums", GOOD)
    failures.add("sums", BAD)
    failures.add("sums", BAD)
    with pytest.raises(UserError, match="found 3 of the last 20"):
        failures.add("sums", BAD)


def test_counting_goes_on_from_a_checkpoint():
    whole, limit = Failures(FailureLimit(share=0.5, calls=4)), FailureLimit(share=0.5, calls=4)
    for result in (GOOD, BAD, BAD):
        whole.add("sums", result)
    restored = Failures(limit, json.loads(json.dumps(whole.to_json())))
    assert restored.to_json() == whole.to_json()
    for failures in (whole, restored):
        with pytest.raises(UserError, match="found 3 of the last 4"):
            failures.add("sums", BAD)


@pytest.mark.parametrize("given", [{"share": 1.5}, {"share": "0.1"}, {"calls": 0}, {"calls": True}])
def test_limits_that_are_none_are_refused(given):
    with pytest.raises(UserError, match=f"FailureLimit.{next(iter(given))}"):
        FailureLimit(**given)
