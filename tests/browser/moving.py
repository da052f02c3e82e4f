"""Sliders of films moved as a user moves them."""

from driving import CANVAS

FILM = ".ldm-film:not(.ldm-paint)"
DIFFERS = "([canvas, before]) => canvas.toDataURL() !== before"
ANSWER = 120_000  # ms; the model may be asked on a busy machine


def every_slider_moves(page) -> int:
    """Move each slider of each film by keyboard and mouse, and see its picture change.

    Returns the number of films.
    """
    films = page.locator(FILM).all()
    for film in films:
        canvas = film.locator("canvas")
        main, *dials = film.get_by_role("slider").all()
        main.press("End")  # at the start of a film, all places of a dial may look alike
        for moved in (*dials, main):
            moved.press("Home")
            first = canvas.evaluate(CANVAS)
            moved.press("ArrowRight")
            assert canvas.evaluate(CANVAS) != first
            box = moved.bounding_box()
            page.mouse.click(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
            assert moved.input_value() == moved.get_attribute("max")
            moved.press("Home")
            assert canvas.evaluate(CANVAS) == first
    return len(films)
