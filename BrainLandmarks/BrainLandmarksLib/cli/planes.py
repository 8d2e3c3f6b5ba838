"""`brainlandmarks planes`: the scan planes of a head from its landmarks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.cli import heads, options, reading, terminal
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_writes, need_absent, need_writable
from BrainLandmarksLib.resources import image_path, landmarks_path

if TYPE_CHECKING:
    from BrainLandmarksLib.io.tables import Table
    from BrainLandmarksLib.planes import Prescription
    from BrainLandmarksLib.protocol import Protocol
    from BrainLandmarksLib.protocol.landmarks import LandmarkSet

_EXAMPLE = """\
examples:
  brainlandmarks planes survey.nii.gz -o planes     finds the landmarks, then the planes
  brainlandmarks planes head.nii.gz --landmarks head.mrk.json -o planes
                                                    takes landmarks that are there already
  brainlandmarks planes head.mrk.json -o planes     from landmarks alone, without pictures
  brainlandmarks planes survey.nii.gz -o planes --reformat "axial AC-PC"
"""

_PIXEL_MM = (0.1, 20.0)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "planes",
        help="propose scan planes of a head",
        description="Propose the scan planes of a head, such as the axial AC-PC plane: place and "
        "directions in RAS and LPS, field of view and slices as DICOM writes them, and how sure "
        "they are. They are proposals of research software; check each before a scan.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "input",
        metavar="IMAGE|LANDMARKS",
        help="image file or folder of DICOM files, or landmark file (.mrk.json, .csv, .fcsv)",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--landmarks",
        metavar="FILE",
        help="landmarks of the image; without it, they are detected",
    )
    parser.add_argument(
        "--reformat",
        action="append",
        default=[],
        metavar="PLANE",
        help="also write the image on the slices of this plane (.nii.gz); can be given repeatedly",
    )
    parser.add_argument(
        "--pixel", type=float, default=1.0, metavar="MM", help="side of the slices' pixels (1.0)"
    )
    heads.add_options(parser)
    parser.add_argument("--no-picture", action="store_true", help="write no .png picture")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    options.add_force(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the planes of a head and print them; returns 0.

    Raises:
        UserError: something cannot be read, found or written, or options do not go together.
    """
    low, high = _PIXEL_MM
    if not low <= arguments.pixel <= high:
        raise UserError(f"--pixel must be {low:g} to {high:g} mm, not {arguments.pixel:g}.")
    without_image = heads.is_landmark_file(arguments.input)
    protocol = _protocol(arguments)
    _check_options(arguments, protocol, without_image)
    stem = _stem(arguments.input, without_image)
    slugs = [_slug(name) for name in _names(arguments.reformat, protocol)]
    outputs = [f"{stem}_planes{suffix}" for suffix in (".csv", ".json", ".mrk.json")]
    if not (without_image or arguments.no_picture):
        outputs.append(f"{stem}_planes.png")
    outputs += [f"{stem}_{slug}.nii.gz" for slug in slugs]
    need_writable(arguments.output)
    if not arguments.overwrite:
        need_absent(arguments.output / name for name in outputs)

    head = _head(arguments, stem, protocol)
    if without_image or arguments.landmarks:
        _note_turned(head.landmarks)
    found = _prescribe(head.landmarks, arguments)
    _write(arguments, stem, head, found)
    print(table(found).plain())
    for each in found:
        if each.reason:
            terminal.notes([f"{each.plane.name}: {each.reason}"])
    if without_image:
        terminal.notes(["without an image there are no pictures and no slices to write"])
    print("\n" + "\n".join(f"wrote {arguments.output / name}" for name in outputs))
    return 0


def table(prescriptions: Sequence[Prescription]) -> Table:
    """The planes as they are printed."""
    from BrainLandmarksLib.io.tables import Table

    nothing = float("nan")
    rows = []
    for each in prescriptions:
        unsure, stack = each.uncertainty, each.stack
        normal = [nothing] * 3 if each.frame is None else [float(x) for x in each.frame.normal]
        rows.append(
            (
                each.plane.name,
                *normal,
                unsure.angle if unsure else nothing,
                unsure.offset if unsure else nothing,
                "{:g} x {:g}".format(*stack.field_mm) if stack else "",
                str(stack.slices) if stack else "",
            )
        )
    header = ("plane", "R", "A", "S", "90 % deg", "90 % mm", "field mm", "slices")
    return Table(header, rows)


def _protocol(arguments: argparse.Namespace) -> Protocol:
    from BrainLandmarksLib.planes.prescription import need_planes

    protocol = heads.protocol_of(arguments)
    need_planes(protocol)
    return protocol


def _check_options(arguments: argparse.Namespace, protocol: Protocol, without_image: bool) -> None:
    """Check that every option that is given does something.

    Raises:
        UserError: one does not, or names a plane that there is not.
    """
    if without_image and arguments.landmarks:
        raise UserError("give one landmark file: as the input, or with --landmarks for an image.")
    if without_image and arguments.reformat:
        raise UserError(
            "--reformat needs an image; give it as the input, and the landmarks with --landmarks."
        )
    # Of one image alone --protocol says nothing, whatever it is. `heads.read_heads` has to accept
    # it with images, for landmark files beside them, so its check is another one.
    if not (without_image or arguments.landmarks or arguments.protocol is None):
        raise UserError("--protocol goes with a landmark file; landmarks are those of --model.")
    _names(arguments.reformat, protocol)


def _names(wanted: Sequence[str], protocol: Protocol) -> list[str]:
    """The names of planes as the protocol writes them.

    Raises:
        UserError: it has no such plane.
    """
    from BrainLandmarksLib.planes.prescription import plane_called

    return [plane_called(protocol, name).name for name in dict.fromkeys(wanted)]


def _stem(text: str, landmark_file: bool) -> str:
    from BrainLandmarksLib.io.images import stem
    from BrainLandmarksLib.io.pairing import annotation_stem

    return annotation_stem(text).removesuffix(".json") if landmark_file else stem(image_path(text))


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def _head(arguments: argparse.Namespace, stem: str, protocol: Protocol) -> heads.Head:
    """The head that was given, with landmarks of its own file, or found.

    Raises:
        UserError: something cannot be read, or the image shows no head.
    """
    if arguments.landmarks is None:
        (head,) = heads.read_heads([arguments.input], arguments, options.force_hint("the planes"))
        return head
    from BrainLandmarksLib.io.landmarks import read_landmarks

    volume = reading.read(image_path(arguments.input), arguments)
    path = landmarks_path(arguments.landmarks, protocol.name)
    return heads.Head(stem, read_landmarks(path, protocol, any_pose=True), volume)


def _note_turned(landmarks: LandmarkSet) -> None:
    """Say so if a file has the head the other way round, as an image that was turned has it."""
    from BrainLandmarksLib.protocol.compliance import turned_round

    turned = turned_round(landmarks.protocol, landmarks.points)
    if turned:
        terminal.notes([f"{turned}: the planes are turned round with them"])


def _prescribe(landmarks: LandmarkSet, arguments: argparse.Namespace) -> list[Prescription]:
    from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
    from BrainLandmarksLib.planes import prescribe

    errors = LandmarkErrors.of_model(arguments.model, landmarks.protocol)
    return prescribe(landmarks, errors, pixel_mm=arguments.pixel)


def _write(
    arguments: argparse.Namespace,
    stem: str,
    head: heads.Head,
    found: list[Prescription],
) -> None:
    """Write all results, or none.

    Raises:
        UserError: a plane that is to be written as slices is not there, or nothing can be written.
    """
    from BrainLandmarksLib.planes import files
    from BrainLandmarksLib.planes.prescription import by_name

    wanted = [by_name(found, name) for name in dict.fromkeys(arguments.reformat)]
    for each in wanted:
        if each.stack is None:
            raise UserError(f"the plane {each.plane.name} cannot be written: {each.reason}.")
    volume, landmarks = head.volume, head.landmarks
    about = {"input": stem, "protocol": landmarks.protocol.name}
    with atomic_writes(arguments.output) as unfinished:
        files.plane_table(found).write_csv(unfinished / f"{stem}_planes.csv")
        files.write_json(unfinished / f"{stem}_planes.json", found, about)
        files.write_plane_nodes(unfinished / f"{stem}_planes.mrk.json", found)
        if volume is None:
            return
        if not arguments.no_picture:
            from BrainLandmarksLib.planes.picture import draw_planes

            draw_planes(volume, landmarks, found, unfinished / f"{stem}_planes.png", title=stem)
        for each in wanted:
            assert each.stack is not None
            target = unfinished / f"{stem}_{_slug(each.plane.name)}.nii.gz"
            files.write_stack(target, files.reformatted(volume, each.stack), each.stack)
