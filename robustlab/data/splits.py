"""Where two parts of one set meet: the one check, whatever door the second came in by."""

from __future__ import annotations

import warnings

from robustlab.data.imageset import Images
from robustlab.errors import UserError, unknown

NAMED = 3  # classes


def matching(test: Images, images: Images, *, may_lack: bool = True) -> Images:
    """The test images of the classes that are trained on, numbered as these are.

    Args:
        test: the one part.
        images: the other.
        may_lack: whether the last classes may be missing, as they are in a small test set of the same kind.

    Raises:
        UserError: they do not know all the classes, have another size or other channels, or there are none.
    """
    classes = images.classes
    if test.classes != classes[: len(test.classes) if may_lack else None]:
        for name in classes:
            if name not in test.classes:
                raise UserError(f"the test images do not know all classes of the training images: {unknown('class', name, test.classes)}")
        test = test.only_classes(classes)
    if test.shape != images.shape:
        here, there = ("x".join(map(str, (*each.shape[1:][::-1], each.shape[0]))) for each in (test, images))
        raise UserError(f"the test images of {test.name} are {here} (width, height, channels), but those to train on are {there}")
    if not len(test):
        raise UserError(f"{test.name} has no test images")
    return test


def note_empty_classes(images: Images, what: str, classes: tuple[str, ...] | None = None) -> None:
    """Say which classes have no image, unless there are fewer images than classes.

    Args:
        images: one part of a set.
        what: which part: ``"training"``.
        classes: those that should have images; the part's own where left out.

    Warns:
        UserWarning: names some of the classes.
    """
    classes = images.classes if classes is None else classes
    counts = images.labels.cpu().bincount(minlength=len(classes)).tolist()
    empty = [name for name, count in zip(classes, counts, strict=False) if not count]
    if empty and len(images) >= len(classes):
        names = ", ".join(ascii(name) for name in empty[:NAMED]) + (", ..." if len(empty) > NAMED else "")
        which = f"{len(empty)} of {len(classes)} classes have" if len(empty) > 1 else "one class has"
        warnings.warn(f"{images.name}: {which} no {what} image: {names}", stacklevel=3)
