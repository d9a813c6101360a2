"""Mistakes that a model finds in itself once its fields are right, said at the fields that they belong to."""

from collections.abc import Iterator

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Wrong = tuple[tuple[str | int, ...], str]
"""A mistake: the field (a path from the model that finds it) and what is wrong."""


def raise_all(model: str, wrong: Iterator[Wrong]) -> None:
    """Raises all of them at once, if there are any.

    Raises:
        ValidationError: each mistake at its field.
    """
    errors = [
        InitErrorDetails(type=PydanticCustomError("mistake", "{text}", {"text": text}), loc=loc, input=None)
        for loc, text in wrong
    ]
    if errors:
        raise ValidationError.from_exception_data(model, errors)
