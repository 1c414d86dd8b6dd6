"""Comments of fields are read from the source, as schemas and reference pages show them."""

from __future__ import annotations

from hilum.comments import comments_in, comments_of, summary_of
from hilum.events import ObjectRef
from hilum.settings import Dicom

SOURCE = '''
class Folder:
    """A folder."""

    #: Must exist, so that
    #: a lost mount is noticed.
    path: str
    size: int = 3  #: In bytes.
    # Why, not what.
    plain: str = "#: no comment"
    #: Of nothing.

    last: bool
'''


def test_a_comment_stands_above_its_field_on_any_number_of_lines() -> None:
    assert comments_in(SOURCE)["path"] == "Must exist, so that a lost mount is noticed."


def test_a_comment_may_stand_behind_its_field() -> None:
    assert comments_in(SOURCE)["size"] == "In bytes."


def test_what_is_no_comment_of_a_field_is_not_taken_for_one() -> None:
    assert comments_in(SOURCE).keys() == {"path", "size"}


def test_comments_of_a_class_are_found_in_its_file() -> None:
    assert comments_of(Dicom)["port"] == "0 picks a free port and keeps it."
    assert comments_of(ObjectRef).keys() == {"sha256"}


def test_a_summary_is_the_docstring_without_its_indentation() -> None:
    assert summary_of(Dicom) == "The DICOM listener."
