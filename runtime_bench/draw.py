"""Faces drawn on their photograph."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.postprocess import Detections

_BOX = (0, 220, 90)
_LANDMARKS = ((255, 70, 70), (70, 130, 255), (255, 210, 0), (255, 90, 220), (0, 220, 220))


def draw_detections(image: np.ndarray, detections: Detections) -> Image.Image:
    """Boxes, scores and, where there are any, landmarks on ``(H, W, 3)`` uint8 RGB, with strokes that fit the photograph's size."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    stroke = max(2, round(max(picture.size) / 400))
    font = ImageFont.load_default(size=max(10, stroke * 7))
    for box, score, landmarks in zip(detections.boxes, detections.scores, detections.landmarks, strict=True):
        left, top, right, bottom = (float(value) for value in box)
        draw.rectangle((left, top, right, bottom), outline=_BOX, width=stroke)
        label = f"{score:.2f}"
        height = draw.textbbox((0, 0), label, font=font)[3] + stroke
        # Above the box where there is room, else inside it.
        anchor = (max(left, 0), top - height if top >= height else max(top, 0) + stroke)
        draw.text(anchor, label, fill=_BOX, font=font, stroke_width=stroke, stroke_fill=(0, 0, 0))
        radius = max(1.0, min(stroke * 1.5, (right - left) / 20))
        for (x, y), colour in zip(landmarks, _LANDMARKS[: len(landmarks)], strict=True):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return picture
