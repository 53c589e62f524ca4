"""The list of networks, as `resnet-bench architectures` prints it."""

from __future__ import annotations

import json
from typing import Any

from resnet_bench import architectures, networks, paper
from resnet_bench.architectures import Architecture
from resnet_bench.render.table import Table


def describe(architecture: Architecture) -> dict[str, Any]:
    """The numbers of one network, for 100 classes; `published_parameters` is None where the paper prints none."""
    parameters = networks.parameter_count(architecture)
    published = paper.PUBLISHED.get(architecture.id)
    return {
        "architecture": architecture.id,
        "published_name": architecture.published_name,
        "change": architecture.change,
        "parameters": parameters,
        "parameters_rounded": architectures.millions(parameters),
        "published_parameters": published.parameters if published else None,
        "multiply_accumulates": networks.multiply_accumulates(architecture),
        "fc_share": architectures.fc_parameter_count(architecture) / parameters,
        "control": architecture.id in architectures.CONTROLS,
        "attention": architecture.attention,
    }


def _all() -> list[dict[str, Any]]:
    return [describe(a) for a in architectures.every().values()]


def as_json() -> str:
    return json.dumps(_all(), indent=2)


def table() -> Table:
    rows = [
        [
            d["architecture"],
            d["published_name"] or ("(control" if d["control"] else f"({d['change']}") + ", not in the paper)",
            f"{d['parameters']:,}",
            d["parameters_rounded"],
            d["published_parameters"] or "–",
            f"{d['multiply_accumulates'] / 1e6:.1f}M",
            f"{d['fc_share']:.1%}",
        ]
        for d in _all()
    ]
    columns = ["id", "published name", "parameters", "rounded", "published", "MACs/image", "in FC layers"]
    return Table("Networks", columns, rows, "Counts for 100 classes; MACs: multiply-accumulates of the forward pass.")
