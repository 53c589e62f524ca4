"""What the study published, as data, each figure with where it stands there. Nothing here was measured by us."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """The published figures of one network; `None` where the paper gives none.

    Attributes:
        parameters: as printed in Table 1 or 2, in millions, rounded to 0.1M.
        epoch_minutes: time per epoch on the paper's laptop, read off Figures 7–10, in minutes.
        peak_accuracy, final_accuracy: top-1 test accuracy as a fraction of 1.
        table: the table that prints the parameter count.
        figure: the figure that plots accuracy and time against the baseline's.
    """

    architecture: str
    name: str
    parameters: str | None
    epoch_minutes: float
    peak_accuracy: float
    final_accuracy: float | None
    table: int | None
    figure: int | None
    remarks: str


PUBLISHED: dict[str, Published] = {
    p.architecture: p
    for p in (
        Published(
            "baseline", "Original(Baseline Residual Network)", "8.9M", 57, 0.36, 0.34, 1, None,
            "converges near 35 % around epoch 5–6, final 34 %; the text on blocks2 gives 34 % as its peak",
        ),
        Published(
            "fc1", "#1 Variation(ResNet with 1 FC)", "1.5M", 7.5, 0.38, None, 1, 7,
            "5–7 points above the baseline in the first 5 epochs",
        ),
        Published(
            "fc3", "#2 Variation(ResNet with 3 FC)", "18.3M", 90, 0.33, 0.31, 1, 8,
            "converges after epoch 4, final 31 %; about 90 minutes",
        ),
        Published(
            "blocks2", "#3 Variation (2 basic blocks)", None, 90, 0.31, None, None, 9,
            "below the baseline in every epoch",
        ),
        Published(
            "conv5x5", "#4 Variation(ResNet_with_5x5ConvolutionLayer_in_BasickBlock)", "1.7M", 12, 0.38, None, 2, 10,
            "peak at epoch 15, still rising; below the baseline for 10 epochs, above it after",
        ),
    )
}  # fmt: skip
"""By architecture id, in the paper's order."""

TABLES: dict[int, tuple[str, ...]] = {1: ("baseline", "fc1", "fc3"), 2: ("baseline", "conv5x5")}
"""The rows of the paper's two tables, by architecture id."""

TABLE_COLUMNS = ("Network", "# of Trainable Hyperparameters")
"""The column heads of both tables, in the paper's words."""

MACHINE = "13th Gen Intel Core i5-1340P (laptop)"
DATASET = "cifar100"
EPOCHS = 15
