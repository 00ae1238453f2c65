"""What crosses from workers to the driver: errors by their text."""

import pytest
from pyspark.errors import PythonException

from batch.spark.workers import held_to_kernel, require_kernel, translated
from headrace.errors import FailedPrecondition, InvalidArgument


def refuse(_: object) -> object:
    raise InvalidArgument("spine: key column 'a' holds a null", reason="NULL_KEY", field="spine")


def test_refusal_in_a_worker_comes_back_as_itself() -> None:
    with pytest.raises(InvalidArgument) as caught:
        held_to_kernel(refuse)(None)
    text = f"Traceback (most recent call last):\n  File x\nheadrace.errors.InvalidArgument: {caught.value}\n"
    error = translated(PythonException(text))
    assert isinstance(error, InvalidArgument)
    assert (error.message, error.reason) == ("spine: key column 'a' holds a null", "NULL_KEY")


def test_missing_package_in_a_worker_is_its_environment() -> None:
    error = translated(PythonException("ModuleNotFoundError: No module named 'batch'\n"))
    assert isinstance(error, FailedPrecondition)
    assert error.field == "worker_python"


def test_other_failures_stay_what_they_are() -> None:
    failure = PythonException("ZeroDivisionError: division by zero")
    assert translated(failure) is failure
    odd = PythonException("headrace.errors.Final: x [REASON]")
    assert translated(odd) is odd


def test_other_kernel_is_refused_before_any_row() -> None:
    with pytest.raises(FailedPrecondition, match="install the same headrace"):
        require_kernel(-1)
    with pytest.raises(FailedPrecondition):
        held_to_kernel(abs, kernel=-1)(1)


def test_refusal_of_several_lines_comes_back_as_itself() -> None:
    def work(_: object) -> object:
        raise InvalidArgument("the function failed:\n  File x, line 1\nKeyError: 'a'", reason="FUNCTION_FAILED")

    with pytest.raises(InvalidArgument) as caught:
        held_to_kernel(work)(None)
    text = f"Traceback (most recent call last):\n  File x\nheadrace.errors.InvalidArgument: {caught.value}\n"
    error = translated(PythonException(text))
    assert isinstance(error, InvalidArgument)
    assert (error.message, error.reason) == ("the function failed: File x, line 1 KeyError: 'a'", "FUNCTION_FAILED")
