"""The landmark protocol: which points there are, what each of them is, how they are grouped.

A protocol is a JSON file (see protocols/protocol.schema.json). Everything else in the project
takes the number of landmarks, their order, labels, groups and colours from it, so another set of
landmarks is another file and no other code. The first protocol, brain88, has the groups of
Table I of the paper; the mirror partners let training flip a head left to right.

>>> protocol = load_protocol("brain88")
>>> protocol.by_label("CC_G").rule
'The most anterior point of the corpus callosum.'
>>> protocol.group_of("CC_G").name
'Corpus Callosum'
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.json_file import read_json
from BrainLandmarksLib.protocol import scan_planes
from BrainLandmarksLib.protocol.scan_planes import ScanPlane

_OPPOSITE = {"L": "R", "R": "L", "M": "M"}


@dataclass(frozen=True)
class Landmark:
    """One point of a protocol.

    `index` counts from 1; `side` is "L", "R" or "M" (midline); `role` is "primary" (sits on named
    anatomy) or "secondary" (spread at equal distances between primary points); `mirror` is the
    label of the partner on the other side, its own label on the midline; `afid` is the number of
    the AFID that is the same point, or None; `aliases` are other names that files call it by.
    """

    index: int
    label: str
    name: str
    group: str
    side: str
    role: str
    plane: str
    rule: str
    mirror: str
    afid: int | None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """A named range of landmarks, `first` to `last` inclusive, drawn in one colour (#rrggbb)."""

    name: str
    first: int
    last: int
    color: str
    guideline: str

    @property
    def indices(self) -> range:
        """The landmark indices (from 1) of the group."""
        return range(self.first, self.last + 1)

    @property
    def slug(self) -> str:
        """The name as part of a file's name, such as "corpus_callosum"."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")

    @property
    def rgb(self) -> tuple[float, float, float]:
        """The colour as red, green, blue from 0 to 1."""
        red, green, blue = (int(self.color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return red, green, blue


@dataclass(frozen=True)
class Plane:
    """A plane that rules refer to by name.

    `shared` says which landmarks that name it lie in one plane: "all" of them, those of one "side"
    each, or "none" (only the plane's direction is common).
    """

    name: str
    definition: str
    shared: str = "none"


@dataclass(frozen=True)
class Chain:
    """Labels that follow each other along an outline, secondary ones at equal arc length.

    An open chain runs from one primary landmark to another; a closed one returns to its first
    member.
    """

    group: str
    members: tuple[str, ...]
    closed: bool


@dataclass(frozen=True)
class Distance:
    """A named distance between two landmarks, given by their labels."""

    name: str
    first: str
    second: str


@dataclass(frozen=True)
class Protocol:
    """A set of landmarks; `len(protocol)` is their number K, iterating gives them in order.

    >>> protocol = load_protocol("brain88")
    >>> left_to_right = protocol.mirror_permutation()
    >>> protocol.landmarks[left_to_right[0]].label
    'FP_R'
    """

    name: str
    title: str
    version: str
    description: str
    reference: str
    head_frame: str
    planes: tuple[Plane, ...]
    groups: tuple[Group, ...]
    chains: tuple[Chain, ...]
    landmarks: tuple[Landmark, ...]
    distances: tuple[Distance, ...] = ()
    scan_planes: tuple[ScanPlane, ...] = ()

    def __len__(self) -> int:
        return len(self.landmarks)

    def __iter__(self) -> Iterator[Landmark]:
        return iter(self.landmarks)

    @property
    def labels(self) -> tuple[str, ...]:
        """The K labels in order."""
        return tuple(landmark.label for landmark in self.landmarks)

    def by_label(self, label: str) -> Landmark:
        """Return the landmark called `label`.

        Raises:
            UserError: the protocol has no such landmark.
        """
        for landmark in self.landmarks:
            if landmark.label == label:
                return landmark
        raise UserError(f"the protocol {self.name} has no landmark called {label!r}.")

    def group_of(self, landmark: Landmark | str) -> Group:
        """Return the group of a landmark, given as such or by its label.

        Raises:
            UserError: the protocol has no such landmark.
        """
        label = landmark if isinstance(landmark, str) else landmark.label
        index = self.by_label(label).index
        return next(group for group in self.groups if index in group.indices)

    def members(self, group: Group | str) -> tuple[Landmark, ...]:
        """Return the landmarks of a group, given as such or by its name, in order.

        Raises:
            UserError: the protocol has no such group.
        """
        name = group if isinstance(group, str) else group.name
        for candidate in self.groups:
            if candidate.name == name:
                return self.landmarks[candidate.first - 1 : candidate.last]
        raise UserError(f"the protocol {self.name} has no group called {name!r}.")

    def mirror_permutation(self) -> np.ndarray:
        """Return the int64 array p of shape (K,) with which a left-right flip renames points.

        If `points` (K, 3) are the landmarks of a head, then `flipped[p]` are those of the mirrored
        head, `flipped` being the points with their x reversed. p is its own inverse.
        """
        row = {landmark.label: landmark.index - 1 for landmark in self.landmarks}
        return np.array([row[landmark.mirror] for landmark in self.landmarks], dtype=np.int64)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of what the points are: their order, rules, sides, planes and chains.

        A model stores it and refuses to run under a protocol with another one. Titles, names,
        guidelines, colours, distances and scan planes do not count, so they can be improved
        without a new model.
        """
        definition = {
            "name": self.name,
            "head_frame": self.head_frame,
            "planes": [{"name": p.name, "definition": p.definition} for p in self.planes],
            "chains": [asdict(chain) for chain in self.chains],
            "landmarks": [
                {
                    key: value
                    for key, value in asdict(landmark).items()
                    if key not in ("name", "afid", "aliases")
                }
                for landmark in self.landmarks
            ],
        }
        canonical = json.dumps(
            definition, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        return hashlib.sha256(canonical.encode("utf-8")).hexdigest()

    def to_json(self) -> str:
        """Return the whole protocol as JSON text; `load_protocol` reads it back unchanged."""
        data = asdict(self)
        data["distances"] = [
            {"name": d.name, "from": d.first, "to": d.second} for d in self.distances
        ]
        for entry in data["landmarks"]:
            # Older versions do not know the entry, nor scan planes.
            if not entry["aliases"]:
                del entry["aliases"]
        if self.scan_planes:
            data["scan_planes"] = [plane.to_json() for plane in self.scan_planes]
        else:
            del data["scan_planes"]
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def load_protocol(name_or_path: str | os.PathLike[str]) -> Protocol:
    """Load a shipped protocol by name ("brain88", "afids32") or any other from its JSON file.

    Raises:
        UserError: there is no such protocol or file, it is not JSON, it breaks the schema, or its
            entries contradict each other (indices, labels, groups, mirror partners, chains).
    """
    text = os.fspath(name_or_path)
    if text in resources.protocol_names():
        return _load_shipped(text)
    path = Path(text)
    if path.suffix != ".json":
        shipped = ", ".join(resources.protocol_names())
        raise UserError(
            f"there is no protocol called {text!r}; give {shipped} or the path of a .json file."
        )
    return _read(path)


def is_shipped(protocol: Protocol) -> bool:
    """Whether a protocol comes with the library, so that its name suffices to find it again."""
    name = protocol.name
    return name in resources.protocol_names() and _load_shipped(name).hash == protocol.hash


@functools.cache
def _load_shipped(name: str) -> Protocol:
    # The tests hold the shipped files to the schema; Slicer starts without the schema's library.
    return _read(resources.protocol_file(name), checked=True)


def _read(path: Path, *, checked: bool = False) -> Protocol:
    data = read_json(path, "the protocol file")
    if not checked:
        _check_schema(data, path)
    protocol = _build(data)
    problem = _contradiction(protocol)
    if problem:
        raise UserError(f"the protocol file {path} contradicts itself: {problem}.")
    return protocol


def _check_schema(data: Any, path: Path) -> None:
    import jsonschema  # the rest of this module stays cheap to import without it

    schema = read_json(resources.protocol_schema(), "the schema")
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema).iter_errors(data)
    )
    if error is not None:
        place = error.json_path.removeprefix("$").removeprefix(".") or "top level"
        # A message can quote a whole landmark list; one line of it is enough to find the place.
        message = error.message if len(error.message) <= 200 else f"{error.message[:200]}..."
        raise UserError(f"the protocol file {path} is not valid at {place}: {message}.")


def _build(data: dict[str, Any]) -> Protocol:
    """Make the dataclasses from data that satisfies the schema, filling in its defaults."""
    return Protocol(
        name=data["name"],
        title=data["title"],
        version=data.get("version", "1.0"),
        description=data.get("description", ""),
        reference=data.get("reference", ""),
        head_frame=data.get("head_frame", ""),
        distances=tuple(
            Distance(entry["name"], entry["from"], entry["to"])
            for entry in data.get("distances", [])
        ),
        planes=tuple(Plane(**entry) for entry in data.get("planes", [])),
        scan_planes=tuple(ScanPlane.of_json(entry) for entry in data.get("scan_planes", [])),
        groups=tuple(Group(**{"guideline": "", **entry}) for entry in data["groups"]),
        chains=tuple(
            Chain(entry["group"], tuple(entry["members"]), entry["closed"])
            for entry in data.get("chains", [])
        ),
        landmarks=tuple(
            Landmark(
                **{
                    "role": "primary",
                    "plane": "",
                    "afid": None,
                    **entry,
                    "aliases": tuple(entry.get("aliases", ())),
                }
            )
            for entry in data["landmarks"]
        ),
    )


def _contradiction(protocol: Protocol) -> str | None:
    """Return what is wrong with the entries taken together, as half a sentence, or None."""
    for check in (_check_landmarks, _check_groups, _check_mirror, _check_chains, _check_distances):
        problem = check(protocol)
        if problem:
            return problem
    return scan_planes.contradiction(protocol.scan_planes, protocol.labels)


def _first_repeated(names: list[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _check_landmarks(protocol: Protocol) -> str | None:
    for position, landmark in enumerate(protocol.landmarks, start=1):
        if landmark.index != position:
            return (
                f"landmark {landmark.label} has index {landmark.index} but stands at position "
                f"{position}; indices count from 1 without gaps"
            )
    # Files find points by label or name and ignore case, so neither may differ by case only.
    for kind, names in (
        ("label", protocol.labels),
        ("name", tuple(landmark.name for landmark in protocol)),
    ):
        repeated = _first_repeated([name.casefold() for name in names])
        if repeated:
            written = next(name for name in names if name.casefold() == repeated)
            return f"the {kind} {written} is used twice"
    called = {
        text.casefold(): landmark
        for landmark in protocol
        for text in (landmark.label, landmark.name)
    }
    for landmark in protocol:
        for alias in landmark.aliases:
            if called.setdefault(alias.casefold(), landmark) is not landmark:
                return f"two landmarks are called {alias}"
    planes = [plane.name for plane in protocol.planes]
    repeated = _first_repeated(planes)
    if repeated:
        return f"the plane {repeated} is defined twice"
    for landmark in protocol.landmarks:
        if landmark.plane and landmark.plane not in planes:
            return f"landmark {landmark.label} refers to the undefined plane {landmark.plane!r}"
    return None


def _check_distances(protocol: Protocol) -> str | None:
    repeated = _first_repeated([distance.name for distance in protocol.distances])
    if repeated:
        return f"the distance {repeated} is defined twice"
    for distance in protocol.distances:
        for label in (distance.first, distance.second):
            if label not in protocol.labels:
                return f"the distance {distance.name} refers to the unknown landmark {label}"
        if distance.first == distance.second:
            return f"the distance {distance.name} goes from {distance.first} to itself"
    return None


def _check_groups(protocol: Protocol) -> str | None:
    repeated = _first_repeated([group.name for group in protocol.groups])
    if repeated:
        return f"the group {repeated} is defined twice"
    expected = 1
    for group in protocol.groups:
        if group.first != expected or group.last < group.first:
            return (
                f"group {group.name} covers {group.first} to {group.last} but must start at "
                f"{expected}; groups follow each other without gap or overlap"
            )
        expected = group.last + 1
    if expected != len(protocol) + 1:
        return (
            f"the groups end at {expected - 1} but there are {len(protocol)} landmarks; "
            "groups cover every landmark"
        )
    for group in protocol.groups:
        for landmark in protocol.landmarks[group.first - 1 : group.last]:
            if landmark.group != group.name:
                return (
                    f"landmark {landmark.label} (index {landmark.index}) says group "
                    f"{landmark.group} but lies in the index range of {group.name}"
                )
    return None


def _check_mirror(protocol: Protocol) -> str | None:
    by_label = {landmark.label: landmark for landmark in protocol.landmarks}
    left_first: bool | None = None
    for landmark in protocol.landmarks:
        partner = by_label.get(landmark.mirror)
        if partner is None:
            return f"landmark {landmark.label} mirrors to the unknown label {landmark.mirror}"
        if partner.mirror != landmark.label:
            return (
                f"landmark {landmark.label} mirrors to {partner.label}, which mirrors to "
                f"{partner.mirror}; partners name each other"
            )
        if partner.side != _OPPOSITE[landmark.side]:
            return (
                f"landmark {landmark.label} (side {landmark.side}) mirrors to {partner.label} "
                f"(side {partner.side}); a left point mirrors to a right one"
            )
        if landmark.side == "M" and partner is not landmark:
            return f"midline landmark {landmark.label} mirrors to {partner.label}, not to itself"
        if partner.role != landmark.role or partner.group != landmark.group:
            return f"landmarks {landmark.label} and {partner.label} differ in role or group"
        if landmark.side == "L":
            order = landmark.index < partner.index
            if left_first is not None and order != left_first:
                return (
                    f"the pair {landmark.label}, {partner.label} is not in the left-right order of "
                    "the pairs before it; one order holds in the whole protocol"
                )
            left_first = order
    return None


def _check_chains(protocol: Protocol) -> str | None:
    by_label = {landmark.label: landmark for landmark in protocol.landmarks}
    spaced: list[str] = []
    for chain in protocol.chains:
        for label in chain.members:
            member = by_label.get(label)
            if member is None:
                return f"a chain of group {chain.group} refers to the unknown label {label}"
            if member.group != chain.group:
                return f"landmark {label} is in a chain of group {chain.group} but not in the group"
        ends = () if chain.closed else (chain.members[0], chain.members[-1])
        for label in ends:
            if by_label[label].role != "primary":
                return f"the open chain of group {chain.group} ends at {label}, which is secondary"
        spaced += [label for label in chain.members if label not in ends]
    repeated = _first_repeated(spaced)
    if repeated:
        return f"landmark {repeated} is spaced by two chains"
    for label in spaced:
        if by_label[label].role != "secondary":
            return f"landmark {label} is spaced by a chain but is primary"
    for landmark in protocol.landmarks:
        if landmark.role == "secondary" and landmark.label not in spaced:
            return f"landmark {landmark.label} is secondary but no chain says where it is spaced"
    return None
