"""Commands that need the training library: one module per subcommand, with `add_parser` and `run`.

They are registered with the entry point that `BrainLandmarksLib.cli` looks for.
"""

from . import (
    ablation,
    augment,
    calibrate,
    dataset_synthesize,
    evaluate,
    evaluate_planes,
    federate,
    finetune,
    robustness,
    robustness_retest,
    train,
)

COMMANDS = (
    dataset_synthesize,
    augment,
    train,
    finetune,
    calibrate,
    federate,
    ablation,
    evaluate,
    evaluate_planes,
    robustness,
    robustness_retest,
)
