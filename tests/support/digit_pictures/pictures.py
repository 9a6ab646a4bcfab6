"""Pictures of MNIST digits with disturbances in graded strength."""

from collections.abc import Callable, Sequence

import numpy as np

from tests.support.digit_pictures import lines, surroundings, writing
from tests.support.digit_pictures.scene import Pixels, Scene, draw_digit, make_scene

Kind = Callable[[Scene, int], None]


WRITING: tuple[Kind, ...] = (
    writing.undisturbed,
    writing.thin,
    writing.thick,
    writing.inverted,
    writing.faint,
    writing.colored,
    writing.compressed,
    writing.blurred,
    writing.small_file,
    writing.much_paper,
    writing.tight_crop,
)
DISTURBANCES: tuple[Kind, ...] = (
    lines.border_lines,
    lines.frame_along_border,
    lines.thick_frame,
    lines.printed_box,
    lines.dashed_box,
    lines.cell_of_table,
    lines.plot_axes,
    lines.writing_line,
    lines.ruled_paper,
    lines.squared_paper,
    lines.colored_grid,
    surroundings.soft_shadow,
    surroundings.sharp_shadow,
    surroundings.uneven_light,
    surroundings.glare,
    surroundings.fold,
    surroundings.sheet_on_desk,
    surroundings.desk_beside,
    surroundings.page_corner,
    surroundings.finger,
    surroundings.punched_holes,
    surroundings.rounded_corners,
    surroundings.screenshot,
    surroundings.screen_photo,
    surroundings.neighbors,
    surroundings.texture,
    surroundings.bleed_through,
    surroundings.chalkboard,
    surroundings.specks,
    surroundings.noisy,
)
# These show the scene as a negative on their own, or only a part of the sheet.
NEVER_INVERTED = (
    writing.inverted,
    surroundings.sheet_on_desk,
    surroundings.desk_beside,
    surroundings.page_corner,
    surroundings.finger,
)


def make_picture(
    image: Pixels | None, kind: Kind, strength: int, seed: int | Sequence[int]
) -> Pixels:
    """Return a picture of an MNIST image, or of none, as uint8 (H, W) or (H, W, 3)."""
    scene = make_scene(image, seed)
    scene.inverted = bool(scene.rng.random() < 0.15) and kind not in NEVER_INVERTED
    kind(scene, strength)
    return scene.render()


def make_row(images: list[Pixels], seed: int) -> Pixels:
    """Return a picture of several digits beside each other, as uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    side = int(rng.integers(100, 200))
    height, step = int(1.5 * side), int(side * rng.uniform(0.95, 1.2))
    ink = np.zeros((height, step * len(images) + side // 3))
    for place, image in enumerate(images):
        top, left = int(rng.integers(0, height - side)), side // 6 + place * step
        ink[top : top + side, left : left + side] += draw_digit(image, side, sharp=True)[
            :, : ink.shape[1] - left
        ]
    paper = np.full(ink.shape, rng.uniform(0.85, 1))
    return Scene(np.clip(ink, 0, 1), paper, 0.1, 0.01, (0, 0, side), rng).render()
