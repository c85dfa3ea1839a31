"""Pixels as cameras, scanners, microscopes and other systems write them."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from nasnet_jax.data import photo_stream, pixels
from nasnet_jax.data.image_data import DataError

NOISE = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)


def saved(image, kind="png", **options) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def read(content, channels=None):
  """(pixels, the kinds of remarks on them)."""
  kinds = []
  found = pixels.read(
    "x", content, channels, lambda kind, _: kinds.append(kind)
  )
  return found, kinds


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_16_bits_become_their_upper_8_in_every_format(kind):
  deep = NOISE[..., 0].astype(np.uint16) * 257
  found, kinds = read(saved(Image.fromarray(deep), kind))
  np.testing.assert_array_equal(found[..., 0], NOISE[..., 0])
  assert kinds == []


def test_12_bits_in_16_are_told_to_be_nearly_black():
  content = saved(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 16))
  assert read(content)[1] == [pixels.DARK]
  black = saved(Image.fromarray(np.zeros((6, 5), np.uint16)))
  assert read(black)[1] == []


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
def test_turned_pictures_are_turned_back_once(orientation, kind):
  exif = Image.Exif()
  exif[0x0112] = orientation
  content = saved(Image.fromarray(NOISE), kind, exif=exif)
  with Image.open(io.BytesIO(content)) as image:
    wanted = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
  assert wanted.shape[0] == (5 if orientation > 4 else 6)
  np.testing.assert_array_equal(read(content)[0], wanted)
  crops = photo_stream.Crops(4, center=1.0)
  upright = saved(Image.fromarray(wanted))
  np.testing.assert_array_equal(
    photo_stream.decode("x", content, crops),
    photo_stream.decode("x", upright, crops),
  )


def test_metadata_that_cannot_be_read_cost_no_picture():
  broken = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff"
  content = saved(Image.fromarray(NOISE), "jpeg", exif=broken)
  plain = saved(Image.fromarray(NOISE), "jpeg")
  found, _ = read(content)
  np.testing.assert_array_equal(found, read(plain)[0])


def test_an_orientation_that_raises_is_told():
  class Odd:
    def getexif(self):
      raise SyntaxError("not a TIFF file")

  kinds = []
  assert pixels.orientation("x", Odd(), lambda kind, _: kinds.append(kind)) == 1
  assert kinds == [pixels.METADATA]


@pytest.mark.parametrize("kind", ["gif", "tiff", "webp", "png"])
def test_of_several_frames_the_first_is_read_and_told(kind):
  frames = [Image.new("RGB", (5, 6), (i, 90 * i, 0)) for i in range(3)]
  content = saved(
    frames[0], kind, save_all=True, append_images=frames[1:], **_lossless(kind)
  )
  found, kinds = read(content, 3)
  assert kinds == [pixels.FRAMES] and (found == 0).all()
  assert read(saved(frames[0], kind), 3)[1] == []


def _lossless(kind):
  return {"lossless": True} if kind == "webp" else {}


def test_transparent_parts_are_told_unless_they_are_read():
  content = saved(Image.new("RGBA", (5, 6), (1, 2, 3, 0)))
  found, kinds = read(content)
  assert kinds == [pixels.CLEAR] and found[0, 0].tolist() == [1, 2, 3]
  assert read(content, 4)[1] == []
  assert read(saved(Image.new("RGBA", (5, 6))), 4)[0].shape == (6, 5, 4)
  opaque = saved(Image.new("RGBA", (5, 6), (1, 2, 3, 255)))
  assert read(opaque)[1] == []


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "P", "1", "PA"])
def test_other_colours_become_grey_or_rgb(mode):
  image = Image.fromarray(NOISE).convert("P" if mode == "PA" else "RGB")
  kind = "jpeg" if mode in ("CMYK", "YCbCr") else "tiff"
  if mode == "PA":
    kind = "png"
  elif mode != "LAB":
    image = image.convert(mode)
  else:
    from PIL import ImageCms

    to_lab = ImageCms.buildTransform(
      ImageCms.createProfile("sRGB"),
      ImageCms.createProfile("LAB"),
      "RGB",
      "LAB",
    )
    image = ImageCms.applyTransform(image, to_lab)
  found, _ = read(saved(image, kind))
  assert found.shape == (6, 5, 1 if mode == "1" else 3)


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (b"", "it is empty, 0 bytes"),
    (bytes(40), "it is only zeros"),
    (b"<html>", "no image format that Pillow knows"),
    (b"\0\0\0\x18ftypheic" + bytes(9), "HEIC.*: pip install pillow-heif"),
    (saved(Image.fromarray(NOISE))[:60], "is broken"),
    (saved(Image.new("F", (5, 6)), "tiff"), "32 bits per pixel: save it"),
  ],
)
def test_what_cannot_be_read_says_why_in_a_line(content, words):
  for decode in (
    lambda: pixels.read("x\ny.png", content, None),
    lambda: photo_stream.decode("x\ny.png", content, photo_stream.Crops(4)),
  ):
    with pytest.raises(DataError, match=words) as error:
      decode()
    assert str(error.value).isprintable() and r"x\ny.png" in str(error.value)


def test_a_picture_too_large_for_pillow_is_not_called_broken(monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
  with pytest.raises(DataError, match="more pixels than Pillow decodes"):
    pixels.read("x", saved(Image.fromarray(NOISE)), None)


@pytest.mark.parametrize("size", [(24, 40), (40, 24), (6, 5), 7])
def test_fit_gives_the_size_asked_for(size):
  height, width = (size, size) if isinstance(size, int) else size
  assert pixels.fit(NOISE, size).shape == (height, width, 3)
  if size == (6, 5):
    assert pixels.fit(NOISE, size) is NOISE
