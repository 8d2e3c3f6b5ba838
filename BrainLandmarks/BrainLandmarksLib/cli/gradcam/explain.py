"""`brainlandmarks explain`: what a position is based on, as Grad-CAM maps in the scan's space."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.cli import reading, terminal
from BrainLandmarksLib.cli.options import add_device, add_force, add_model, force_hint
from BrainLandmarksLib.errors import ImplausibleError, UserError
from BrainLandmarksLib.gradcam import SETS, TARGETS
from BrainLandmarksLib.io.atomic import atomic_writes, need_absent, need_writable
from BrainLandmarksLib.resources import image_path

if TYPE_CHECKING:
    from BrainLandmarksLib.protocol import Protocol

_EXAMPLE = """\
examples:
  brainlandmarks explain head.nii.gz -o maps                      all landmarks, one map each
  brainlandmarks explain head.nii.gz -o maps --landmark CC_G 37   two landmarks, by label and number
  brainlandmarks explain head.nii.gz -o maps --group Eye --files group
  brainlandmarks explain sample:colin27 -o maps --layer stages.1.2
      the layer's names are those of the network's modules; see docs/gradcam.md of the source code
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "explain",
        help="show what the network's answer is based on (Grad-CAM)",
        description="Find the landmarks of a T1 image and write for each a 3-D map of the anatomy "
        "that its position is based on, in the space of the image (.nii.gz), with a description "
        "(.json) and a picture (.png). A map is no measure of confidence.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "image", metavar="IMAGE", help="an image file or a folder of DICOM files, as for detect"
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the results"
    )
    add_choice(parser)
    parser.add_argument(
        "--files",
        default="landmark",
        choices=SETS,
        help="one 3-D file per landmark (default); one 3-D file per group, with the largest of its "
        "maps at each voxel; or one 4-D file",
    )
    add_model(parser)
    add_device(parser)
    reading.add_options(parser)
    add_force(parser)
    parser.add_argument("--no-picture", action="store_true", help="write no .png")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.set_defaults(run=run)


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose landmarks, and how they are explained."""
    parser.add_argument(
        "--landmark",
        nargs="+",
        default=[],
        metavar="LABEL|INDEX",
        help="landmarks by label or number; see `brainlandmarks protocol`",
    )
    parser.add_argument(
        "--group", nargs="+", default=[], metavar="NAME", help="all landmarks of these groups"
    )
    parser.add_argument(
        "--all", action="store_true", help="all landmarks (default without --landmark and --group)"
    )
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="layer of the network (default: the last convolution with a kernel larger than one "
        "voxel, stages.2.2.conv2 in the shipped model)",
    )
    parser.add_argument(
        "--target",
        default="argmax",
        choices=TARGETS,
        help="explain the heatmap at its highest voxel (default, as in the paper), or at the point "
        "of its spatial softmax, where the landmark is placed",
    )


def chosen_rows(arguments: argparse.Namespace, protocol: Protocol) -> list[int]:
    """Rows (from 0) of the landmarks that the options of `add_choice` name.

    Raises:
        UserError: there is no such landmark or group.
    """
    from BrainLandmarksLib.gradcam.explanation import rows_of

    rows = rows_of(protocol, arguments.landmark, arguments.group)
    return list(range(len(protocol))) if arguments.all else rows


def run(arguments: argparse.Namespace) -> int:
    """Explain the landmarks of one image; returns 0.

    Raises:
        UserError: a name is wrong, the image cannot be used, or the results cannot be written.
    """
    from BrainLandmarksLib.detection import Detector
    from BrainLandmarksLib.gradcam.explanation import check_layer, explain
    from BrainLandmarksLib.gradcam.output import file_names, write_maps
    from BrainLandmarksLib.io.images import stem

    path = image_path(arguments.image)
    name = stem(path)
    need_writable(arguments.output)
    detector = Detector(arguments.model, arguments.device)
    check_layer(detector.model.network, arguments.layer)
    protocol = detector.model.protocol
    rows = chosen_rows(arguments, protocol)
    picture = f"{name}_gradcam.png"
    if not arguments.overwrite:
        names = file_names(name, protocol, rows, arguments.files)
        names += [] if arguments.no_picture else [picture]
        need_absent(arguments.output / file for file in names)
    volume = reading.reader(arguments)(path)
    try:
        detection = detector.detect(volume, force=arguments.force)
    except ImplausibleError as error:
        raise UserError(f"{error} {force_hint('the maps')}") from None
    explanation = explain(detector, detection, arguments.layer, target=arguments.target)
    with atomic_writes(arguments.output) as unfinished:
        written = write_maps(unfinished, explanation, rows, image=name, sets=arguments.files)
        if not arguments.no_picture:
            from BrainLandmarksLib.gradcam.figures import draw_explanation

            title = name if detection.plausible else f"{name} (implausible)"
            draw_explanation(volume, explanation, rows, unfinished / picture, title=title)
            written.append(unfinished / picture)
    terminal.notes(explanation.detection.notes)
    count = len(written) - (1 if arguments.no_picture else 2)
    print(
        f"{len(rows)} of {len(protocol)} landmarks explained, layer {explanation.seen.layer}; "
        f"{count} map file{'s' if count > 1 else ''} in {arguments.output}"
    )
    for file in written[count:]:
        print(f"wrote {arguments.output / file.name}")
    return 0
