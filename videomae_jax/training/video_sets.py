"""The sets of videos that a recipe names: opened, and checked before anything else happens."""

from videomae_jax.config import REGRESSION, SINGLE_LABEL, VideoMAEConfig
from videomae_jax.data.classes import check_flip, empty_classes
from videomae_jax.data.sources import VideoSource, open_source
from videomae_jax.labels import NO_LABEL, is_integer, is_unnamed
from videomae_jax.training.downstream import DownstreamRecipe
from videomae_jax.training.progress import say

SHOWN = 5  # names of classes in a message


def open_video_set(
    key: str,
    path: str,
    max_broken_share: float,
    class_names: tuple[str, ...] | None = None,
    problem_type: str = SINGLE_LABEL,
    hint: str = "",
) -> VideoSource:
    """Opens the set that a key of the recipe names.

    Args:
      key: of the recipe's section `data`.
      path, class_names, problem_type: those of `open_source`.
      max_broken_share: of the videos that need not be there, `data.max_broken_share`.
      hint: what else to say in an error.

    Raises:
      ValueError: it is not there or cannot be understood; it names the key.
    """
    try:
        return open_source(path, class_names, problem_type, max_broken_share)
    except (ValueError, OSError) as error:
        hint = f" {hint}" if hint else ""
        raise ValueError(f"config.data.{key}: {error}.\nIt is set with --config.data.{key}=PATH.{hint}") from error


def open_downstream_sets(recipe: DownstreamRecipe) -> dict[str, VideoSource]:
    """The sets by name, `train`, `val`, `test`, all with the classes of `train`.

    Without `data.test_path` the validation videos are tested. Prints the classes without training videos.

    Raises:
      ValueError: a set that cannot be opened, without labels, or with one class alone; mirrored clips where classes say
        a direction.
    """
    training = open_video_set("path", recipe.data.path, recipe.data.max_broken_share, None, recipe.problem_type)
    # First: other sets are read with its classes, and would get the blame where it has none.
    if recipe.problem_type != REGRESSION:
        _check_classes(training)
    sets = {"train": training}
    for name, key in (("val", "val_path"), ("test", "test_path")):
        if path := getattr(recipe.data, key):
            sets[name] = open_video_set(
                key, path, recipe.data.max_broken_share, training.class_names, recipe.problem_type
            )
            check_labels(key, sets[name])
    if "val" in sets:
        sets.setdefault("test", sets["val"])
    if recipe.augment.flip and recipe.trains:
        check_flip(training.class_names)
    return sets


def open_test_set(recipe: DownstreamRecipe, config: VideoMAEConfig) -> VideoSource:
    """The videos to test a trained model on, with its classes.

    Where the model's classes have no names, numbers are theirs, and names are taken to be theirs, in the order of the
    data's own classes, if they are as many.

    Raises:
      ValueError: a set that cannot be opened, without labels, or with other classes.
    """
    key = "test_path" if recipe.data.test_path else "val_path"
    path, names = getattr(recipe.data, key), tuple(config.id2label.values())
    if is_unnamed(config.id2label) and recipe.problem_type == SINGLE_LABEL:
        own = open_video_set(key, path, recipe.data.max_broken_share).class_names
        if not all(map(is_integer, own)):
            if len(own) != len(names):
                raise ValueError(
                    f"config.data.{key}: {path} names {len(own)} classes, and init_from={recipe.init_from} has "
                    f"{len(names)} without names: give their numbers as labels, from 0."
                )
            shown = ", ".join(f"{number} {name}" for number, name in enumerate(own[:SHOWN]))
            shown += ", ..." * (len(own) > SHOWN)
            say("note", f"the model's classes have no names: taken to be the data's, {shown}")
            names = own
    source = open_video_set(key, path, recipe.data.max_broken_share, names, recipe.problem_type)
    check_labels(key, source)
    return source


def in_words(sets: dict[str, VideoSource]) -> str:
    """How many videos of which data a run has, for a person."""
    return ", ".join(f"{len(source)} videos of {source.name} ({name})" for name, source in sets.items())


def check_labels(key: str, source: VideoSource) -> None:
    """Raises a ValueError where it is known that no video has a label."""
    if source.problem_type == SINGLE_LABEL and source.labels is not None and (source.labels == NO_LABEL).all():
        raise ValueError(f"config.data.{key}: none of the {len(source)} videos of {source.name} has a label.")


def _check_classes(source: VideoSource) -> None:
    """Raises a ValueError where training videos have nothing to teach; prints the classes without any."""
    if len(source.class_names) < 2 and source.problem_type == SINGLE_LABEL:
        raise ValueError(
            f"config.data.path: {source.name} has {len(source.class_names)} classes; a classifier needs at least two."
        )
    unlabelled = 0
    if source.problem_type == SINGLE_LABEL and source.labels is not None:
        unlabelled = int((source.labels == NO_LABEL).sum())
    if unlabelled:
        raise ValueError(
            f"config.data.path: {unlabelled} of {len(source)} videos of {source.name} have no label; leave them out."
        )
    if empty := empty_classes(source):
        shown = ", ".join(empty[:SHOWN]) + ", ..." * (len(empty) > SHOWN)
        say("note", f"{len(empty)} of {len(source.class_names)} classes have no training videos: {shown}")
