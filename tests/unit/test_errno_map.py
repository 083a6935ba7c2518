"""The one table between exceptions and errno."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volgate import errors
from volgate.errors.errno_map import ERRNO_OF, from_errno, to_errno


def all_classes(class_=errors.StorageException):
    for child in class_.__subclasses__():
        yield child
        yield from all_classes(child)


@pytest.mark.parametrize("class_", list(all_classes()), ids=lambda c: c.__name__)
def test_every_exception_has_a_number_and_words(class_):
    assert class_ in ERRNO_OF
    assert str(class_())
    assert str(class_("words")) == "words"


ONE_WAY = (
    errors.Unavailable,
    errors.BadConfiguration,
    errors.VolumeInUse,
    errors.NotMounted,
    errors.SourceChanged,
)


@pytest.mark.parametrize("class_", [c for c in ERRNO_OF if c not in ONE_WAY], ids=lambda c: c.__name__)
def test_an_exception_comes_back_from_its_number(class_):
    assert type(from_errno(to_errno(class_()))) is class_


@given(st.integers(-10_000, 10_000))
def test_any_number_becomes_an_exception_with_a_number_that_the_kernel_passes_on(number):
    assert 1 <= to_errno(from_errno(number)) <= 133


def test_an_unknown_number_is_an_error_of_the_backing_and_named():
    assert "EL2HLT" in str(from_errno(errno.EL2HLT))
    assert to_errno(from_errno(errno.EL2HLT)) == errno.EIO


def test_a_new_subclass_answers_as_its_parent():
    class Special(errors.NotFound):
        """A special case."""

    assert to_errno(Special()) == errno.ENOENT
