"""`brainlandmarks detect`: find the landmarks of T1 images and write them down."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.cli import options, reading, terminal
from BrainLandmarksLib.cli.cohort import detect_bids
from BrainLandmarksLib.cli.each_image import check_names, detector_loader, each_image, named
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_writes, need_absent, need_writable
from BrainLandmarksLib.resources import image_path

if TYPE_CHECKING:
    from BrainLandmarksLib.detection import Detection, Detector
    from BrainLandmarksLib.imaging.volume import Volume
    from BrainLandmarksLib.protocol.landmarks import LandmarkSet

_EXAMPLE = """\
examples:
  brainlandmarks detect head.nii.gz -o results    writes results/head_landmarks.mrk.json, .csv, .png
  brainlandmarks detect *.nii.gz -o results       many images; a bad one does not stop the others
  brainlandmarks detect dicom_folder -o results   the T1 series of a folder of DICOM files
  brainlandmarks detect sample:colin27 -o demo    the head that comes with the program
  brainlandmarks detect --bids data -o data/derivatives/brainlandmarks --workers 4
                                                  every T1w image of a BIDS dataset, four at a time
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "detect",
        help="find the landmarks of T1 images",
        description="Find the landmarks of T1-weighted images of the head, in any orientation. "
        "Per image: landmarks for 3D Slicer (.mrk.json), a table in RAS millimetres (.csv) and a "
        "picture (.png). For a BIDS dataset see the second group of options.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="NIfTI, MGZ, NRRD or MetaImage file, or a folder of DICOM files",
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the results"
    )
    options.add_model(parser)
    options.add_device(parser)
    options.add_quality(parser)
    reading.add_options(parser)
    parser.add_argument(
        "--format",
        default=options.DEFAULT_FORMATS,
        metavar="LIST",
        help=f"landmark files to write, of mrk.json,csv,fcsv (default: {options.DEFAULT_FORMATS})",
    )
    parser.add_argument("--no-picture", action="store_true", help="write no .png")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    options.add_force(parser)
    detect_bids.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Detect the landmarks of every image and return the exit code: 2 if any image failed.

    Raises:
        UserError: nothing can be done at all: a wrong option, model or output folder.
    """
    if arguments.bids is not None:
        return detect_bids.run(arguments)
    detect_bids.need_none(arguments)
    if not arguments.images:
        raise UserError("give an image, or a BIDS dataset with --bids; see detect --help.")
    from BrainLandmarksLib.io.images import stem

    paths = [image_path(argument) for argument in arguments.images]
    suffixes = _suffixes(arguments.format, picture=not arguments.no_picture)
    check_names(paths)
    need_writable(arguments.output)
    load = detector_loader(arguments.model, arguments.device)
    read = reading.reader(arguments)

    def detect(path: Path) -> None:
        outputs = [arguments.output / f"{stem(path)}_landmarks{suffix}" for suffix in suffixes]
        if not arguments.overwrite:
            need_absent(outputs)
        detection = _detect_one(path, outputs, load, read, arguments)
        terminal.notes(named(note, path, paths) for note in detection.notes)
        if len(paths) == 1:
            print(table(detection.landmarks))
            print(_summary(detection, outputs))

    failures = each_image(paths, detect, options.force_hint("the landmarks"))
    if len(paths) > 1:
        done = len(paths) - failures
        print(f"{done} of {len(paths)} images done, results in {arguments.output}")
    return 2 if failures else 0


def table(landmarks: LandmarkSet) -> str:
    """The landmarks as text for a terminal: index, label, group, RAS mm, confidence, remark."""
    protocol = landmarks.protocol
    label_width = max(len("label"), *(len(landmark.label) for landmark in protocol.landmarks))
    group_width = max(len("group"), *(len(group.name) for group in protocol.groups))
    lines = [
        f"{'index':>5}  {'label':<{label_width}}  {'group':<{group_width}}"
        f"  {'R mm':>7}  {'A mm':>7}  {'S mm':>7}  confidence"
    ]
    for row, landmark in enumerate(protocol.landmarks):
        start = f"{landmark.index:>5}  {landmark.label:<{label_width}}"
        start += f"  {landmark.group:<{group_width}}"
        if landmarks.status[row] == "missing":
            lines.append(f"{start}  {landmarks.notes[row] or 'missing'}")
            continue
        r, a, s = landmarks.points[row]
        line = f"{start}  {r:7.1f}  {a:7.1f}  {s:7.1f}  {landmarks.confidence[row]:10.2f}"
        lines.append(f"{line}  {landmarks.notes[row]}".rstrip())
    return "\n".join(lines)


def _summary(detection: Detection, outputs: Sequence[Path]) -> str:
    found = int((~detection.landmarks.missing).sum())
    seconds = sum(detection.seconds.values())
    lines = [
        f"\n{found} of {len(detection.landmarks)} landmarks found in {seconds:.1f} s "
        f"on {detection.device} ({detection.precision}), plausibility {detection.plausibility:.2f}"
    ]
    lines += [f"wrote {path}" for path in outputs]
    return "\n".join(lines)


def _detect_one(
    path: Path,
    outputs: Sequence[Path],
    load: Callable[[], Detector],
    read: Callable[[Path], Volume],
    arguments: argparse.Namespace,
) -> Detection:
    volume = read(path)
    detection = load().detect(volume, quality=arguments.quality, force=arguments.force)
    _write(volume, detection, outputs)
    return detection


def _write(volume: Volume, detection: Detection, outputs: Sequence[Path]) -> None:
    """Write all results of one image, or none."""
    from BrainLandmarksLib.io.landmarks import write_landmarks

    landmarks = detection.landmarks
    with atomic_writes(outputs[0].parent) as unfinished:
        for path in outputs:
            if path.suffix == ".png":
                from BrainLandmarksLib.figures.slices import draw_landmarks

                title = path.name.removesuffix("_landmarks.png")
                title += "" if detection.plausible else " (implausible)"
                draw_landmarks(volume, landmarks, unfinished / path.name, title=title)
            else:
                written = unfinished / path.name
                write_landmarks(written, landmarks, plausibility=detection.plausibility)


# Checks before any work ---------------------------------------------------------------------------


def _suffixes(formats: str, *, picture: bool) -> list[str]:
    from BrainLandmarksLib.io.landmarks import FORMATS

    names = [name.strip().lstrip(".") for name in formats.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise UserError(f"--format does not know {name!r}; choose from {', '.join(FORMATS)}.")
    if not names:
        raise UserError(f"--format is empty; choose from {', '.join(FORMATS)}.")
    suffixes = [f".{name}" for name in dict.fromkeys(names)]
    return [*suffixes, ".png"] if picture else suffixes
