"""Properties have all the time they need: on a loaded machine a deadline fails what is right."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=2, database=None)
@given(st.booleans())
def test_an_example_that_takes_longer_than_the_usual_deadline_is_no_failure(_):
    time.sleep(0.3)  # the usual one is 0.2 s


def test_no_test_sets_a_deadline_of_its_own():
    assert settings().deadline is None
