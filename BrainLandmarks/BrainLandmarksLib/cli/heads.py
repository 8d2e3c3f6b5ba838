"""Heads as images or landmark files: the options of commands that take either, and reading them.

>>> add_options(parser)
>>> heads = read_heads([arguments.moving, arguments.fixed], arguments)
>>> heads[0].landmarks
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.cli import options, reading, terminal
from BrainLandmarksLib.errors import ImplausibleError, UserError
from BrainLandmarksLib.resources import SAMPLE_PREFIX, image_path

if TYPE_CHECKING:
    from BrainLandmarksLib.imaging.volume import Volume
    from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
    from BrainLandmarksLib.protocol import Protocol
    from BrainLandmarksLib.protocol.landmarks import LandmarkSet

LANDMARK_SUFFIXES = (".mrk.json", ".json", ".csv", ".fcsv")

HELP = "image, in which the landmarks are found first, or landmark file (.mrk.json, .csv, .fcsv)"


@dataclass(frozen=True)
class Head:
    """A head that a command was given.

    Args:
        name: Of its file, without suffix.
        volume: The image; None if landmarks were given.
    """

    name: str
    landmarks: LandmarkSet
    volume: Volume | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add how images are read and landmarks found, and what the landmarks of files are."""
    options.add_model(parser)
    options.add_device(parser)
    options.add_quality(parser)
    reading.add_options(parser)
    parser.add_argument(
        "--protocol",
        metavar="NAME|FILE",
        help="the landmarks of the files, if they are not those of the model",
    )


def is_landmark_file(argument: str) -> bool:
    """Whether an argument names a landmark file, by its suffix."""
    return argument.lower().endswith(LANDMARK_SUFFIXES)


def protocol_of(arguments: argparse.Namespace) -> Protocol:
    """The landmarks of files: of --protocol, or of the model.

    Raises:
        UserError: there is no such protocol or model.
    """
    from BrainLandmarksLib.network.model_files import model_protocol
    from BrainLandmarksLib.protocol import load_protocol

    if arguments.protocol is not None:
        return load_protocol(arguments.protocol)
    return model_protocol(arguments.model)


def calibrated(arguments: argparse.Namespace, protocol: Protocol) -> LandmarkErrors:
    """The errors of the model's landmarks; those of people alone if the files have others.

    Raises:
        UserError: there is no such model.
    """
    from BrainLandmarksLib.network.landmark_errors import LandmarkErrors

    return LandmarkErrors.of_model(arguments.model, protocol)


def read_heads(
    given: Sequence[str], arguments: argparse.Namespace, force_hint: str = ""
) -> list[Head]:
    """Read files, and find the landmarks of images.

    Args:
        force_hint: What --force would bring, for commands that have it, as a sentence.

    Raises:
        UserError: one cannot be read, shows no head, or a landmark file is turned round as a whole
            and another is not.
    """
    from BrainLandmarksLib.io.landmarks import read_landmarks
    from BrainLandmarksLib.io.pairing import annotation_stem
    from BrainLandmarksLib.network.model_files import model_protocol
    from BrainLandmarksLib.protocol.compliance import need_one_way_round

    protocol = protocol_of(arguments)
    files = {
        argument: read_landmarks(argument, protocol, any_pose=True)
        for argument in given
        if is_landmark_file(argument)
    }
    need_one_way_round([(Path(name).name, landmarks) for name, landmarks in files.items()])
    images = [argument for argument in given if argument not in files]
    if images and protocol.hash != model_protocol(arguments.model).hash:
        raise UserError(
            "--protocol is of landmark files, and the landmarks of images are those of --model; "
            "give landmark files only, or a model that finds the landmarks of --protocol."
        )
    found = dict(zip(images, _detected(images, arguments, force_hint), strict=True))
    return [
        Head(annotation_stem(argument), files[argument]) if argument in files else found[argument]
        for argument in given
    ]


def _detected(images: Sequence[str], arguments: argparse.Namespace, force_hint: str) -> list[Head]:
    """The landmarks of images; all are read before the first detection."""
    from BrainLandmarksLib.io.images import stem

    read = reading.reader(arguments)
    names = [
        argument.removeprefix(SAMPLE_PREFIX)
        if argument.startswith(SAMPLE_PREFIX)
        else stem(argument)
        for argument in images
    ]
    volumes = [read(image_path(argument)) for argument in images]
    if not volumes:
        return []
    from BrainLandmarksLib.detection import Detector

    detector = Detector(arguments.model, arguments.device)
    force = bool(force_hint) and arguments.force
    heads = []
    for number, (name, volume) in enumerate(zip(names, volumes, strict=True)):
        terminal.progress(number, len(volumes), name)
        try:
            detection = detector.detect(volume, quality=arguments.quality, force=force)
        except ImplausibleError as error:
            raise UserError(f"{name}: {error} {force_hint}".rstrip()) from error
        terminal.notes(f"{name}: {note}" for note in detection.notes)
        heads.append(Head(name, detection.landmarks, volume))
    terminal.progress(len(volumes), len(volumes), "")
    return heads
