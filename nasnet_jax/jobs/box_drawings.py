"""Boxes drawn on a picture."""

from nasnet_jax.detection import metrics
from nasnet_jax.jobs import lettering

_COLOURS = (
  "#e6194b",
  "#3cb44b",
  "#0082c8",
  "#f58231",
  "#911eb4",
  "#008080",
  "#aa6e28",
  "#808000",
)


def paint(picture, found: metrics.Found, class_names):
  """Draws boxes, labels and scores into a Pillow image of mode RGB, the best
  on top."""
  from PIL import ImageDraw

  pen = ImageDraw.Draw(picture)
  size = max(10, min(picture.size) // 40)
  width = max(1, min(picture.size) // 250)
  for box, score, label in reversed(list(zip(*found))):
    y1, x1, y2, x2 = map(float, box)
    colour = _COLOURS[int(label) % len(_COLOURS)]
    pen.rectangle((x1, y1, x2, y2), outline=colour, width=width)
    font, words = lettering.font_for(
      f"{class_names[int(label)]} {score:.2f}", size
    )
    height = pen.textbbox((0, 0), words, font=font)[3] + 2
    top = y1 - height if y1 >= height else y1  # above, or inside at the border
    pen.rectangle(pen.textbbox((x1, top), words, font=font), fill=colour)
    pen.text((x1, top), words, fill="white", font=font)


def outline(picture, boxes):
  """Draws true boxes: white lines with a dark rim, without words."""
  from PIL import ImageDraw

  pen = ImageDraw.Draw(picture)
  for y1, x1, y2, x2 in boxes.tolist():
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="black", width=3)
    pen.rectangle((x1, y1, x2, y2), outline="white")
