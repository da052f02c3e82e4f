"""A line to write a caption in: what follows it needs a running kernel."""

from collections.abc import Callable

import ipywidgets

from ldm_edu.errors import LdmEduError

_ASK = "Write a caption and press Enter."


class CaptionBox(ipywidgets.VBox):
    """A text line: `use(text)` is called when Enter is pressed or the line is left.

    Below it stands what to do, "Drawing ..." meanwhile, and what `use` objected (LdmEduError).
    """

    def __init__(self, text: str, use: Callable[[str], None]):
        self.line = ipywidgets.Text(
            text, description="Caption", continuous_update=False, layout={"width": "100%"}
        )
        self.said = ipywidgets.Label(_ASK)
        super().__init__([self.line, self.said], layout={"max_width": "640px"})
        self._use = use
        self.line.observe(self._written, names="value")

    def _written(self, change: dict) -> None:
        self.said.value = "Drawing ..."
        try:
            self._use(change["new"])
            self.said.value = _ASK
        except LdmEduError as error:
            self.said.value = str(error)

    def __repr__(self) -> str:
        return f"A line for a caption, now: {self.line.value!r} (needs a running kernel)"
