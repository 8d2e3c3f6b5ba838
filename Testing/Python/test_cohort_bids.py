"""Which scans of a BIDS dataset are found."""

import sys

import pytest

from BrainLandmarksLib.cohort.bids import find_scans
from BrainLandmarksLib.errors import UserError

NAMES = [
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-01/anat/sub-01_acq-mprage_run-1_T1w.nii.gz",
    "sub-01/anat/sub-01_acq-mprage_run-2_T1w.nii",
    "sub-01/anat/sub-01_T2w.nii.gz",
    "sub-A2/ses-base/anat/sub-A2_ses-base_T1w.nii.gz",
    "sub-A2/ses-base/anat/sub-A2_ses-base_T1w.json",
    "sub-A2/ses-base/func/sub-A2_ses-base_task-rest_bold.nii.gz",
    "sub-A2/ses-late/anat/sub-A2_ses-late_ce-x+y_T1w.nii.gz",
    "derivatives/other/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
    "sourcedata/sub-01/anat/sub-01_T1w.nii.gz",
    "code/sub-01_T1w.nii.gz",
]


@pytest.fixture
def dataset(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_scans_are_found_with_their_entities(dataset):
    found = find_scans(dataset)
    assert found.left_out == []
    assert [scan.path for scan in found.scans] == [
        NAMES[0], NAMES[1], NAMES[2], NAMES[4], NAMES[7],
    ]  # fmt: skip
    first, _, _, late, last = found.scans
    assert (first.participant, first.session, first.folder) == ("01", "", "sub-01/anat")
    assert (late.participant, late.session) == ("A2", "base")
    assert last.entities == "sub-A2_ses-late_ce-x+y"
    assert not any(scan.problem for scan in found.scans)


def test_another_suffix_and_some_subjects(dataset):
    assert [scan.path for scan in find_scans(dataset, "T2w").scans] == [NAMES[3]]
    for label in ("A2", "sub-A2"):
        scans = find_scans(dataset, participants=[label]).scans
        assert {scan.participant for scan in scans} == {"A2"}


def test_a_link_to_nowhere_is_a_scan(dataset):
    (dataset / "sub-01/anat/sub-01_run-3_T1w.nii.gz").symlink_to(dataset / "annex")
    assert len(find_scans(dataset).scans) == 6


def test_the_same_scan_twice_is_a_problem_of_this_scan(dataset):
    (dataset / "sub-01/anat/sub-01_T1w.nii").touch()
    scans = find_scans(dataset).scans
    assert len(scans) == 5
    assert [scan.entities for scan in scans if scan.problem] == ["sub-01"]
    assert "as .nii and as .nii.gz" in scans[0].problem


@pytest.mark.parametrize(
    "entities",
    ["inv-1", "flip-2", "mt-on", "inv-2_part-mag", "acq-x_flip-1_mt-off", "dir-AP", "echo-1"],
)
def test_all_entities_of_bids_are_names(dataset, entities):
    path = dataset / "sub-01/anat" / f"sub-01_{entities}_T1w.nii.gz"
    path.touch()
    found = find_scans(dataset)
    assert found.left_out == []
    assert f"sub-01_{entities}" in [scan.entities for scan in found.scans]


@pytest.mark.parametrize("part", ["phase", "real", "imag"])
def test_a_part_that_is_no_magnitude_is_no_scan(dataset, part):
    (dataset / f"sub-01/anat/sub-01_part-{part}_T1w.nii.gz").touch()
    lone = dataset / f"sub-03/anat/sub-03_part-{part}_T1w.nii.gz"
    lone.parent.mkdir(parents=True)
    lone.touch()
    found = find_scans(dataset)
    assert len(found.scans) == 5
    assert found.left_out == []
    (absent,) = found.absent
    assert (absent.entities, absent.path) == ("sub-03", "")
    assert absent.problem == "its T1w images are phase, real or imaginary parts only."


def test_bidsignore_is_honoured(dataset):
    lines = ["# not these", "*_run-2_T1w.*", "/sub-A2/ses-late/", "**/anat/*_T2w.nii.gz", "sub-09"]
    (dataset / ".bidsignore").write_text("\n".join([*lines, "!sub-09_keep", ""]))
    (dataset / "sub-09/anat").mkdir(parents=True)
    (dataset / "sub-09/anat/sub-09_T1w.nii.gz").touch()
    found = find_scans(dataset)
    assert [scan.path for scan in found.scans] == [NAMES[0], NAMES[1], NAMES[4]]
    assert found.absent == []
    # What somebody asks for or lists is reported.
    (dataset / "participants.tsv").write_text("participant_id\tage\nsub-09\t50\n")
    (absent,) = find_scans(dataset).absent
    assert (absent.entities, absent.problem) == (
        "sub-09",
        "its T1w images are named in .bidsignore.",
    )
    with pytest.raises(UserError, match=r"no image sub-\.\.\._T2w"):
        find_scans(dataset, "T2w")


def test_bidsignore_needs_its_library(dataset, monkeypatch):
    (dataset / ".bidsignore").write_text("*_T2w.nii.gz\n")
    monkeypatch.setitem(sys.modules, "pathspec", None)
    with pytest.raises(UserError, match=r"pip install 'brainlandmarks\[cohort\]'"):
        find_scans(dataset)


def test_subjects_without_a_scan_are_reported(dataset):
    for name in ("sub-03", "sub-04/anat", "sub-05/ses-1/anat"):
        (dataset / name).mkdir(parents=True)
    (dataset / "sub-04/anat/sub-04_T2w.nii.gz").touch()
    (dataset / "sub-05/ses-1/anat/Doe_T1w.nii.gz").touch()
    (dataset / "participants.tsv").write_text(
        "\ufeffparticipant_id\tsex\nsub-01\tM\nsub-06\tF\n07\tF\nDoe, John\tM\n",
        encoding="utf-8",
    )
    found = find_scans(dataset)
    assert len(found.scans) == 5
    assert {scan.entities: scan.problem for scan in found.absent} == {
        "sub-03": "its folder is empty.",
        "sub-04": "it has no T1w image in an anat folder.",
        "sub-05": "it has no T1w image that is named as BIDS says.",
        "sub-06": "it is in participants.tsv, but has no folder.",
        "sub-07": "it is in participants.tsv, but has no folder.",
    }
    assert all(scan.path == "" for scan in found.absent)
    found = find_scans(dataset, participants=["01", "sub-06", "99", "99"])
    assert {scan.participant for scan in found.scans} == {"01"}
    assert [(s.participant, s.problem) for s in found.absent] == [
        ("06", "it is in participants.tsv, but has no folder."),
        ("99", "it has no folder and is not in participants.tsv; check the label."),
    ]
    # An array job whose subjects have nothing has something to say, too.
    assert [s.participant for s in find_scans(dataset, participants=["03"]).absent] == ["03"]


def test_a_folder_that_names_no_subject_is_counted_and_not_quoted(dataset):
    (dataset / "sub-Doe_John").mkdir()
    (sentence,) = find_scans(dataset).left_out
    assert sentence.startswith("the dataset has one folder sub-... not named as BIDS says")
    assert "John" not in sentence


@pytest.mark.parametrize(
    "name",
    [
        "John_Doe_T1w.nii.gz",
        "sub-02_T1w.nii.gz",
        "sub-01_ses-1_T1w.nii.gz",
        "sub-01_run-1_run-2_T1w.nii.gz",
        "sub-01_desc-preproc_T1w.nii.gz",
        "sub-01_acq_T1w.nii.gz",
        "sub-01_acq-a-b_T1w.nii.gz",
        "run-1_sub-01_T1w.nii.gz",
    ],
)
def test_other_names_are_counted_and_not_quoted(dataset, name):
    (dataset / "sub-01/anat" / name).touch()
    found = find_scans(dataset)
    assert len(found.scans) == 5
    (sentence,) = found.left_out
    assert sentence.startswith("sub-01/anat has one image of type T1w not named as BIDS says")
    assert name not in sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"suffix": "T1-w"}, "no suffix of a BIDS name"),
        ({"suffix": "FLAIR"}, "no image sub-..._FLAIR.nii.gz"),
        ({"participants": ["01", "../01"]}, "no subject's label"),
    ],
)
def test_nothing_to_find_is_one_sentence(dataset, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        find_scans(dataset, **arguments)


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(UserError, match="no folder sub-"):
        find_scans(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        find_scans(tmp_path / "nowhere")
