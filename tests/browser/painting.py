"""The mask painter used as a user uses it."""

from moving import ANSWER


def stroke(page, y: int) -> None:
    """Draw a line across the picture of 64 pixels, at height y, by mouse."""
    veil = page.locator(".ldm-paint-veil")
    veil.scroll_into_view_if_needed()
    box = veil.bounding_box()
    left, top, pixel = box["x"], box["y"], box["width"] / 64
    page.mouse.move(left + 10 * pixel, top + y * pixel)
    page.mouse.down()
    page.mouse.move(left + 54 * pixel, top + y * pixel, steps=6)
    page.mouse.up()


def said(page, text: str) -> None:
    """Wait until the painter says this below."""
    page.locator(".ldm-paint .ldm-film-caption").get_by_text(text).wait_for(timeout=ANSWER)
