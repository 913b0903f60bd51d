"""Numbers of exercises are judged by their hash, and the hash fits the rounding that the exercise asks for."""

import math

import numpy as np
import pytest

from cmxlib.book.answers import digest, is_right


def test_a_right_number_is_right_to_its_digits_and_no_other_is():
    bits = math.log2(math.factorial(16)) + 16
    assert is_right("3.1", bits) and is_right("3.1", bits + 1e-3)
    assert not is_right("3.1", bits + 0.02) and not is_right("3.1", 0) and not is_right("3.1", bits, bits)


def test_equal_answers_of_two_exercises_do_not_look_equal():
    assert digest("1.1", 96, digits=0) != digest("6.1", 96, digits=0)


def test_what_is_no_answer():
    with pytest.raises(TypeError):
        is_right("3.1", None)
    with pytest.raises(ValueError, match=r"exercise must be one of .*, but it is '9\.9'"):
        is_right("9.9", 1)


@pytest.mark.parametrize("answer", ["3,14", "3", b"3", np.array("3"), None, [1], ()])
def test_an_answer_that_is_no_number_is_told(answer):
    with pytest.raises(TypeError, match="An answer must be made of numbers"):
        is_right("0.1", answer)
