"""`brainlandmarks detect --bids`: the scans of a BIDS dataset, resumable and many at a time."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from BrainLandmarksLib.cli import terminal
from BrainLandmarksLib.cli.options import DEFAULT_FORMATS
from BrainLandmarksLib.errors import UserError

_OPTIONS = ("participant_label", "suffix", "workers", "scheduler")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of cohorts to those of `detect`."""
    group = parser.add_argument_group(
        "a BIDS dataset",
        "Results are BIDS derivatives and one table of all scans, cohort.tsv. Scans that are done "
        "already for the same image and model are skipped, so a run that was stopped resumes.",
    )
    group.add_argument(
        "--bids", type=Path, metavar="DIR", help="the dataset, in place of images; see above"
    )
    group.add_argument(
        "--participant-label",
        nargs="+",
        metavar="LABEL",
        help="only these subjects, with or without sub-; no table is written, see report",
    )
    group.add_argument("--suffix", help="kind of image in the dataset (default: T1w)")
    group.add_argument(
        "--workers", type=int, metavar="N", help="scans at a time on this machine (default: 1)"
    )
    group.add_argument(
        "--scheduler",
        metavar="ADDRESS|FILE",
        help="do the work on a running Dask cluster: its address, such as tcp://node1:8786, or its "
        "scheduler file",
    )


def need_none(arguments: argparse.Namespace) -> None:
    """Check that no option of cohorts is given without --bids.

    Raises:
        UserError: one is.
    """
    for name in _OPTIONS:
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} needs --bids.")


def run(arguments: argparse.Namespace) -> int:
    """Detect the landmarks of a dataset's scans; returns the exit code.

    It is 2 if any scan failed, or if a subject has none.

    Raises:
        UserError: nothing can be done at all: no dataset, model or output folder, or no cluster.
    """
    _check(arguments)
    from BrainLandmarksLib.cohort.bids import DEFAULT_SUFFIX, find_scans
    from BrainLandmarksLib.cohort.derivatives import Derivatives
    from BrainLandmarksLib.cohort.execution import run as run_jobs
    from BrainLandmarksLib.cohort.table import TABLE_FILE, ReportedScan, write_table
    from BrainLandmarksLib.cohort.work import STATES, Job
    from BrainLandmarksLib.network.model_files import model_identity, model_protocol

    participants = arguments.participant_label or ()
    suffix = arguments.suffix or DEFAULT_SUFFIX
    found = find_scans(arguments.bids, suffix, participants)
    model_name, checksum = model_identity(arguments.model)
    protocol = model_protocol(arguments.model)
    results = Derivatives.prepare(arguments.output, arguments.bids, protocol)
    # Workers may have another working folder; a shipped model goes by its name.
    folder = Path(arguments.model)
    jobs = [
        Job(
            raw=str(arguments.bids.absolute()),
            output=str(results.folder),
            scan=scan,
            model=str(folder.absolute()) if folder.is_dir() else arguments.model,
            model_name=model_name,
            model_sha256=checksum,
            device=arguments.device,
            overwrite=arguments.overwrite,
            assume_orientation=arguments.assume_orientation,
            quality=arguments.quality,
            force=arguments.force,
        )
        for scan in found.scans
    ]
    for sentence in found.left_out:
        terminal.report(UserError(sentence))
    counts = dict.fromkeys(STATES, 0)
    workers = 1 if arguments.workers is None else arguments.workers
    outcomes = run_jobs(jobs, workers, arguments.scheduler or "")
    for done, outcome in enumerate(outcomes):
        terminal.progress(done, len(jobs), outcome.scan.entities)
        counts[outcome.state] += 1
        if outcome.sentence:
            terminal.report(UserError(f"{outcome.scan.entities}: {outcome.sentence}"))
        if outcome.bug:
            print(outcome.bug, file=sys.stderr, flush=True)
    terminal.progress(len(jobs), len(jobs), "")
    absent = results.write_absent(found.absent, suffix, participants)
    for scan in absent:
        terminal.report(UserError(f"{scan.entities}: {scan.problem}"))
    print(
        f"{len(jobs)} scans: {counts['found']} done, {counts['kept']} were done before, "
        f"{counts['failed']} failed"
    )
    if absent:
        print(f"subjects without a {suffix} image: {len(absent)}")
    if participants:
        print(f"when all jobs are done: brainlandmarks report {arguments.output}")
    else:
        write_table(results, [ReportedScan.of(record) for record in results.records()])
        print(f"wrote {arguments.output / TABLE_FILE}")
    return 2 if counts["failed"] or found.left_out or absent else 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.images:
        raise UserError("give images or --bids, not both.")
    if arguments.format != DEFAULT_FORMATS or arguments.no_picture:
        raise UserError(
            "--format and --no-picture do not go with --bids: its results are .tsv and .mrk.json; "
            "brainlandmarks report makes the pictures."
        )
    if arguments.series is not None:
        raise UserError("--series does not go with --bids: a BIDS dataset holds no DICOM.")
    if arguments.assume_orientation is not None:
        from BrainLandmarksLib.io.images.orientation import check_codes

        check_codes(arguments.assume_orientation)  # or every scan would fail for it
    if arguments.scheduler is not None and arguments.workers is not None:
        raise UserError("give --workers or --scheduler, not both: a cluster has its own workers.")
