"""Text detection in pixels: how much of drawn text is found, by size and contrast, and what is found where none is."""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.report import Report
from processors.anonymize.text import boxes, found

SIDE = 512
HEIGHTS = (8, 10, 12, 16, 24)
#: Between text and what is behind it, in parts of the range from black to white.
CONTRASTS = (1.0, 0.5, 0.25, 0.1)
THRESHOLDS = (0.4, 0.6, 0.8)
#: A text is covered if so much of its ink is within what would be painted over.
COVERED = 0.95
FAMILIES = ("Müller", "Doe", "Kowalski", "Nguyen", "O'Brien", "Li", "Schneider", "Rossi", "Garcia-Lopez", "Ivanov")
GIVENS = ("Anna", "John", "Wei", "Maria", "Björn", "Eva", "Carlos", "Olga", "Max", "Zoë")
Drawn = Any


def ct(rng: np.random.Generator) -> Drawn:
    """A body of ellipses in air, with noise."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    image = np.full((SIDE, SIDE), 0.02)
    image[(x / 0.85) ** 2 + (y / 0.6) ** 2 < 1] = 0.45
    for _ in range(12):
        cx, cy, a, b = rng.uniform(-0.5, 0.5), rng.uniform(-0.35, 0.35), *rng.uniform(0.03, 0.25, 2)
        image[((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1] = rng.uniform(0.1, 0.9)
    return image + rng.normal(0, 0.03, image.shape)


def mr(rng: np.random.Generator) -> Drawn:
    """Folded tissue, bright and dark, brighter near the coil."""
    field = smooth(rng, 14) * 3
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    inside = (x / 0.75) ** 2 + (y / 0.9) ** 2 < 1
    image = np.where(inside, 0.4 + 0.25 * np.sin(field * 6), 0.01) * (1 - 0.3 * y)
    return image + np.abs(rng.normal(0, 0.02, image.shape))


def ultrasound(rng: np.random.Generator) -> Drawn:
    """A fan of speckle on black, a grey bar and ticks beside it."""
    y, x = np.mgrid[0 : 1 : SIDE * 1j, -0.5 : 0.5 : SIDE * 1j]
    radius, angle = np.hypot(x, y + 0.05), np.arctan2(x, y + 0.05)
    speckle = rng.rayleigh(0.22, (SIDE, SIDE)) * (0.5 + smooth(rng, 10))
    image = np.where((radius > 0.12) & (radius < 0.9) & (np.abs(angle) < 0.6), speckle, 0.0)
    image[60:200, 490:500] = np.linspace(1, 0, 140)[:, None]
    image[40:480:20, 470:478] = 0.8
    return image


def radiograph(rng: np.random.Generator) -> Drawn:
    """Soft shadows with ribs, edges and grain."""
    image = 0.35 + 0.4 * smooth(rng, 3)
    y = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j][0]
    x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j][1]
    for n in range(8):
        image += 0.12 * np.exp(-(((y - 0.1 * n - 0.3 * (x - 0.5) ** 2 - 0.05) / 0.012) ** 2))
    return image + rng.normal(0, 0.015, image.shape)


BACKGROUNDS: dict[str, Callable[[np.random.Generator], Drawn]] = {"CT": ct, "MR": mr, "ultrasound": ultrasound, "radiograph": radiograph}


def smooth(rng: np.random.Generator, detail: int) -> Drawn:
    """Random hills from 0 to 1."""
    small = Image.fromarray((rng.random((detail, detail)) * 255).astype(np.uint8))
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64) / 255


def eight(image: Drawn) -> Drawn:
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def lines(dice: random.Random) -> list[str]:
    name = f"{dice.choice(FAMILIES)}^{dice.choice(GIVENS)}" if dice.random() < 0.5 else f"{dice.choice(GIVENS)} {dice.choice(FAMILIES)}"
    day = f"{dice.randrange(1, 29):02}.{dice.randrange(1, 13):02}.{dice.randrange(1930, 2015)}"
    return [name.upper() if dice.random() < 0.5 else name, f"ID {dice.randrange(10**6, 10**8)}", day]


def with_text(image: Drawn, height: int, contrast: float, dice: random.Random) -> tuple[Drawn, list[Drawn]]:
    """The image with three lines of text, and the ink of each."""
    font = ImageFont.load_default(size=height / 0.72)  # so that capitals are `height` pixels high
    out, inks = image.copy(), []
    for n, line in enumerate(lines(dice)):
        sheet = Image.new("L", (SIDE, SIDE))
        at = (dice.randrange(8, SIDE - 260), 12 + n * 165 + dice.randrange(0, 120))
        ImageDraw.Draw(sheet).text(at, line, fill=255, font=font)
        ink = np.asarray(sheet, dtype=np.float64) / 255
        there = ink > 0.5
        behind = float(np.median(out[there])) if there.any() else 0.0
        colour = min(1.0, behind + contrast) if behind < 0.5 or behind - contrast < 0 else behind - contrast
        out = out * (1 - ink) + colour * ink
        inks.append(there)
    return out, inks


def covered(ink: Drawn, found: tuple[tuple[int, int, int, int], ...]) -> float:
    """How much of the ink is within the boxes."""
    where = np.zeros(ink.shape, bool)
    for left, top, right, bottom in found:
        where[top:bottom, left:right] = True
    return float((ink & where).sum() / ink.sum())


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="./dev bench text", description=__doc__)
    parser.add_argument("--images", type=int, default=6, help="for each background, height and contrast")
    parser.add_argument("--threshold", type=float, default=0.6)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args(arguments)
    report = Report("text", "Text detection in pixels: recall and false positives")
    dice, rng = random.Random(wanted.seed), np.random.default_rng(wanted.seed)
    whole: defaultdict[tuple[str, int, float], list[float]] = defaultdict(list)
    began, looks = time.perf_counter(), 0
    for name, draw in BACKGROUNDS.items():
        for height in HEIGHTS:
            for contrast in CONTRASTS:
                for _ in range(wanted.images):
                    image, inks = with_text(draw(rng), height, contrast, dice)
                    at = boxes(eight(image), wanted.threshold)
                    looks += 1
                    whole[name, height, contrast] += [covered(ink, at) for ink in inks]
    seconds = (time.perf_counter() - began) / looks
    for name in BACKGROUNDS:
        rows = []
        for height in HEIGHTS:
            row: list[object] = [f"{height} px"]
            for contrast in CONTRASTS:
                values = whole[name, height, contrast]
                row.append(f"{share([value >= COVERED for value in values])} ({share([value > 0 for value in values])})")
            rows.append(row)
        columns = ["height of capitals", *(f"contrast {contrast:.0%}" for contrast in CONTRASTS)]
        report.table(f"{name}: texts covered (noticed), of {3 * wanted.images} in each field", columns, rows)
    rows = []
    for name, draw in BACKGROUNDS.items():
        read = [found(eight(draw(rng))) for _ in range(4 * wanted.images)]
        row = [name, len(read)]
        for threshold in THRESHOLDS:
            found_in = [tuple(box for box, confidence in each if confidence >= threshold) for each in read]
            area = np.mean([covered(np.ones((SIDE, SIDE), bool), found) for found in found_in])
            row.append(f"{share([bool(found) for found in found_in])} of images, {area:.2%} of the area")
        rows.append(row)
    report.table("Images without text in which some was found", ["background", "images", *(f"threshold {t}" for t in THRESHOLDS)], rows)
    report.say(
        f"Covered: at least {COVERED:.0%} of a text's ink is within the boxes; noticed: some of it is. Threshold {wanted.threshold}, "
        f"images of {SIDE} x {SIDE} pixels, {seconds:.2f} s for each by the clock. Backgrounds are drawn, not taken from patients: "
        "figures for real images differ, and are to be measured on a site's own. "
        "The ultrasound background has ticks and a grey bar, which are no text."
    )
    report.write()


def share(values: list[bool]) -> str:
    return f"{sum(values) / len(values):.0%}"
