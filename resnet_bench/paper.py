"""What the study published, as data, with the place where the paper prints it. Nothing here was measured by us."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedNetwork:
    """The published numbers of one network; None where the paper gives none.

    Attributes:
        architecture: our id of the network.
        name: the paper's name of the network, as printed.
        parameters: the number of parameters as printed in Table 1 or 2, in millions, rounded to 0.1M.
        epoch_minutes: time per epoch on the paper's laptop, read off Figures 7–10, in minutes.
        peak_accuracy: highest top-1 test accuracy of any epoch, as a fraction of 1.
        final_accuracy: top-1 test accuracy after the last epoch, as a fraction of 1.
        figure: the number of the figure that plots accuracy and time against the baseline's.
        remarks: what else the paper says about the network's accuracy or time, in our words.
    """

    architecture: str
    name: str
    parameters: str | None
    epoch_minutes: float
    peak_accuracy: float
    final_accuracy: float | None
    figure: int | None
    remarks: str


PUBLISHED: dict[str, PublishedNetwork] = {
    p.architecture: p
    for p in (
        PublishedNetwork(
            "baseline", "Original(Baseline Residual Network)", "8.9M", 57, 0.36, 0.34, None,
            "converges near 35 % around epoch 5–6, final 34 %; the text on blocks2 gives 34 % as its peak",
        ),
        PublishedNetwork(
            "fc1", "#1 Variation(ResNet with 1 FC)", "1.5M", 7.5, 0.38, None, 7,
            "5–7 points above the baseline in the first 5 epochs",
        ),
        PublishedNetwork(
            "fc3", "#2 Variation(ResNet with 3 FC)", "18.3M", 90, 0.33, 0.31, 8,
            "converges after epoch 4, final 31 %; about 90 minutes",
        ),
        PublishedNetwork(
            "blocks2", "#3 Variation (2 basic blocks)", None, 90, 0.31, None, 9,
            "below the baseline in every epoch",
        ),
        PublishedNetwork(
            "conv5x5", "#4 Variation(ResNet_with_5x5ConvolutionLayer_in_BasickBlock)", "1.7M", 12, 0.38, None, 10,
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

# What every network was trained on, and for how long.
DATASET = "cifar100"
TRAIN_IMAGES = 50_000
TEST_IMAGES = 10_000
CLASSES = 100
EPOCHS = 15

CPU_MODEL = "i5-1340P"
"""What the model name of the paper's CPU contains; times in minutes hold for it alone."""

MINUTES_ROUNDING = {"baseline": 0.5, "fc1": 0.25, "fc3": 5.0, "blocks2": 5.0, "conv5x5": 0.5}
"""How far the published minutes may lie from the minutes measured there: half of the step that they are rounded to.

57 and 12 are whole minutes, and 7.5 is a multiple of half a minute. 90 is given as "about 90" and read as a multiple of
ten.
"""


@dataclass(frozen=True)
class Claim:
    """One checkable sentence of the study.

    Attributes:
        id: the key of its rule in `resnet_bench.analysis.claims.RULES`.
        sentence: what is claimed, in our words; the paper's own words are in «».
        where: the table or figure that shows it, or `text`.
    """

    id: str
    sentence: str
    where: str


CLAIMS: tuple[Claim, ...] = (
    Claim("table1", "Baseline, one FC layer, three FC layers: 8.9M, 1.5M and 18.3M trainable parameters.", "Table 1"),
    Claim("table2", "Baseline and 5×5 convolutions: 8.9M and 1.7M trainable parameters.", "Table 2"),
    Claim("baseline-minutes", "An epoch of the baseline takes 57 minutes on the paper's laptop.", "Figures 7–10"),
    Claim("fc1-faster", "With one FC layer an epoch takes less time than the baseline's.", "Figure 7"),
    Claim("fc1-factor", "With one FC layer an epoch takes 7.5 minutes against 57: 7.6 times less.", "Figure 7"),
    Claim("fc3-slower", "With three FC layers an epoch takes longer than the baseline's.", "Figure 8"),
    Claim("fc3-factor", "With three FC layers an epoch takes about 90 minutes against 57: 1.6 times more.", "Figure 8"),
    Claim("blocks2-slower", "With two basic blocks an epoch takes longer than the baseline's with four.", "Figure 9"),
    Claim("blocks2-factor", "With two basic blocks an epoch takes 90 minutes against 57: 1.6 times more.", "Figure 9"),
    Claim("conv5x5-faster", "With 5×5 convolutions an epoch takes less time than the baseline's.", "Figure 10"),
    Claim("conv5x5-factor", "With 5×5 convolutions an epoch takes 12 minutes against 57: 4.8 times less.", "Figure 10"),
    Claim("baseline-peak", "The baseline's peak accuracy is 36 %.", "Figures 7–10"),
    Claim("fc1-peak", "With one FC layer the peak accuracy is 38 %.", "Figure 7"),
    Claim("fc3-peak", "With three FC layers the peak accuracy is 33 %.", "Figure 8"),
    Claim("blocks2-peak", "With two basic blocks the peak accuracy is 31 %.", "Figure 9"),
    Claim("conv5x5-peak", "With 5×5 convolutions the peak accuracy is 38 %.", "Figure 10"),
    Claim("fc1-higher", "One FC layer has a higher peak accuracy than the baseline.", "Figure 7"),
    Claim("fc3-lower", "Three FC layers have a lower peak accuracy than the baseline.", "Figure 8"),
    Claim("blocks2-lower", "Two basic blocks have a lower peak accuracy than the baseline.", "Figure 9"),
    Claim("conv5x5-higher", "5×5 convolutions have a higher peak accuracy than the baseline.", "Figure 10"),
    Claim("fc1-early-lead", "One FC layer is 5–7 points above the baseline in the first 5 epochs.", "Figure 7"),
    Claim("baseline-converges", "The baseline converges near 35 % around epoch 5–6.", "text"),
    Claim("baseline-final", "The baseline's final accuracy is 34 %.", "text"),
    Claim("fc3-converges", "With three FC layers the accuracy converges after epoch 4.", "Figure 8"),
    Claim("fc3-final", "With three FC layers the final accuracy is 31 %.", "Figure 8"),
    Claim("blocks2-below", "Two basic blocks are below the baseline in every epoch.", "Figure 9"),
    Claim("conv5x5-crossing", "5×5 convolutions are below the baseline for 10 epochs and above it after.", "Figure 10"),
    Claim("conv5x5-rising", "With 5×5 convolutions the peak is at epoch 15, still rising.", "Figure 10"),
    Claim("parameters-time", "«the reduction in time is likely related to the number of parameters»", "text"),
    Claim("kernel-parameters", "5×5 in place of 3×3 convolutions lower the number of parameters.", "Table 2"),
    Claim("kernel-time", "5×5 in place of 3×3 convolutions shorten an epoch.", "Figure 10"),
    Claim("depth-time", "Two basic blocks in place of four lengthen an epoch.", "Figure 9"),
    Claim("depth-accuracy", "Two basic blocks in place of four lower the accuracy.", "Figure 9"),
)  # fmt: skip
"""Every checkable sentence, in the order of the tables and figures. Those about causes are last."""
