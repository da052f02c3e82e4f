"""The caption box hands on what is written, and tells what is wrong with it."""

from ldm_edu.errors import InputError
from ldm_edu.lab.captions import CaptionBox


def test_what_is_written_is_used_and_the_box_says_what_it_does():
    seen = []
    box = CaptionBox("a man", lambda text: seen.append((text, box.said.value)))
    assert seen == [] and "press Enter" in box.said.value
    box.line.value = "a woman"
    assert seen == [("a woman", "Drawing ...")]
    assert "press Enter" in box.said.value
    assert repr(box) == "A line for a caption, now: 'a woman' (needs a running kernel)"


def test_an_objection_is_told_and_the_next_caption_is_used():
    def use(text):
        if text == "a dragon":
            raise InputError("no dragons")

    box = CaptionBox("", use)
    box.line.value = "a dragon"
    assert box.said.value == "no dragons"
    box.line.value = "a man"
    assert "press Enter" in box.said.value
