"""Which scans of a BIDS dataset are found."""

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
        ({"participants": ["01", "07"]}, "no subject sub-07"),
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
