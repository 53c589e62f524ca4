"""A figure as a picture: SVG or PNG by matplotlib, the same for every user; and SVG as a part of a page.

matplotlib is the optional extra `figures`, and takes long to import: it is imported only where a figure is drawn.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import sys
import textwrap
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnet_bench.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

WIDTH = 9.0  # inches
NARROW = 4.2  # inches, for a phone
DPI = 150  # of the PNG

MATPLOTLIB_SETTINGS: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "svg.fonttype": "path",  # looks the same wherever it is opened
    "text.hinting": "none",  # as FREETYPE_PROPERTIES has a say in it
    "text.parse_math": False,  # names come from files: their dollar signs are no formulas
}


@dataclass(frozen=True)
class Figure:
    """A figure that can be drawn. The same results give the same bytes.

    Attributes:
        name: of its files, e.g. `figure-7`.
        title: one line, drawn above it.
        alt: what it shows, for those who cannot see it.
        caption: data set, machine, settings, and what the intervals are.
        context: data set and machine in short, drawn below the title, because a picture travels without its caption.
        height: inches.
        draw: draws everything but the titles on an empty matplotlib figure.
        width: inches.
    """

    name: str
    title: str
    alt: str
    caption: str
    context: str
    height: float
    draw: Callable[[Canvas], None]
    width: float = WIDTH

    def svg(self) -> str:
        """The figure as a standalone SVG document."""
        return self._render("svg", {"Date": None, "Creator": "resnet-bench"}).decode()

    def inline(self, prefix: str) -> str:
        """The figure as an `svg` element of a page, without its titles, which the page has as text.

        Only elements and attributes that draw are kept, so nothing in it is fetched or run. A colour `#0050c0` becomes
        `var(--c0050c0, #0050c0)`, so that the page can give another one for dark paper.

        Args:
            prefix: begins every id in it; another one for each figure of the page.
        """
        return _inlined(self._render("svg", {"Date": None}, titled=False), self.alt, prefix)

    def png(self) -> bytes:
        """The figure as PNG, `DPI` dots per inch."""
        return self._render("png", {"Software": None})

    @contextlib.contextmanager
    def canvas(self, titled: bool = True) -> Iterator[Canvas]:
        """The drawn matplotlib figure; the suite's settings of matplotlib hold until the context ends.

        Raises `UserError` without matplotlib.
        """
        require_matplotlib()
        import matplotlib
        from matplotlib.figure import Figure as Canvas

        # A user's matplotlibrc must not change the picture. The picture must not change the backend of a notebook.
        settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, **MATPLOTLIB_SETTINGS, "svg.hashsalt": self.name}
        settings.pop("backend", None)
        with matplotlib.rc_context(settings):
            canvas = Canvas(figsize=(self.width, self.height), layout="constrained", facecolor="white")
            canvas.get_layout_engine().set(w_pad=0.1, h_pad=0.06, wspace=0.03)  # type: ignore[union-attr, call-arg]
            if titled:
                context = textwrap.fill(self.context, int(100 * self.width / WIDTH))
                canvas.suptitle(f"{self.title}\n{context}", fontsize=10.5)
            self.draw(canvas)
            yield canvas

    def _render(self, format_: str, metadata: dict[str, Any], titled: bool = True) -> bytes:
        out = io.BytesIO()
        with self.canvas(titled) as canvas, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # names in scripts that its font lacks
            canvas.savefig(out, format=format_, dpi=DPI, metadata=metadata)
        return out.getvalue()


DRAWING = {"svg", "g", "path", "use", "rect", "defs", "clipPath", "pattern"}
"""The elements of SVG that matplotlib draws with."""

ATTRIBUTES = {"d", "id", "style", "fill", "transform", "clip-path", "viewBox", "href"}
ATTRIBUTES |= {"x", "y", "width", "height", "patternUnits", "patternTransform"}


def _inlined(document: bytes, alt: str, prefix: str) -> str:
    root = ET.fromstring(document)
    used = set(re.findall(rb"(?:xlink:href=\"|url\()#([^\")]+)", document))
    numbers = {name.decode(): f"{prefix}-{number}" for number, name in enumerate(sorted(used))}
    for element in root.iter():
        for child in [child for child in element if _local(child.tag) not in DRAWING]:
            element.remove(child)
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items() if _local(key) in ATTRIBUTES}
        element.attrib.clear()
        if "fill" in attributes:  # a pattern has it there
            attributes["style"] = f"fill: {attributes.pop('fill')}; {attributes.get('style', '')}"
        for key, value in attributes.items():
            if key in ("id", "href"):
                name = numbers.get(value.removeprefix("#"))
                value = f"{'#' if key == 'href' else ''}{name}" if name else ""
            elif key in ("style", "clip-path"):
                value = re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{numbers[found[1]]})", value)
                value = re.sub(r"#([0-9a-f]{6})\b", r"var(--c\1, #\1)", value)
            if value:
                element.set(key, value)
    for key in ("width", "height"):
        root.attrib.pop(key, None)  # the page says how large it is
    root.attrib |= {"role": "img", "aria-label": alt}
    return ET.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    """The name without its namespace."""
    return name.rpartition("}")[2]


def require_matplotlib() -> None:
    """Import matplotlib; raise `UserError` where it is not installed or cannot be imported.

    The environment may name a backend that is not installed here: a notebook sets one for every process that it starts.
    Figures need no backend, so matplotlib is imported without it, and gets it afterwards where it accepts it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError('Figures need matplotlib; install it with: pip install "resnet-bench[figures]".')
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib

        if backend:
            with contextlib.suppress(ValueError):
                matplotlib.rcParams["backend"] = backend
    except Exception as error:  # from a part of matplotlib, or from a matplotlibrc that is not text
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"Figures need matplotlib, which cannot be imported ({reason}); mend its matplotlibrc or install it anew."
        ) from None
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
