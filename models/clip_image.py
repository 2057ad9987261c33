"""From a picture file to the pixels that CLIP sees: what the Hugging Face image processor computes with Pillow.

Its order: RGB, resized to a shortest edge (or a size), cut from the middle, scaled to 0..1, normalised.
"""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from models.json_settings import ModelError, count, flag, format_value, number, read_object

OWN_FILE, PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
KINDS = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor")
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
MAX_SIDE = 2**14  # pixels that an image is resized to
STEPS = ("resize", "center_crop", "rescale", "normalize", "convert_rgb")
DEFAULTS: Mapping[str, Any] = {
    **{f"do_{step}": True for step in STEPS},
    "size": 224,
    "crop_size": 224,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": MEAN,
    "image_std": DEVIATION,
}
"""What transformers takes for a setting that a file leaves out."""


@dataclass(frozen=True)
class Preprocessing:
    """The steps; None leaves one out.

    shortest_edge, size: what an image is resized to, one of them, size as (height, width). resample: Pillow's filter.
    crop: (height, width) cut from the middle, with black around an image that is smaller. scale: factor of the values
    0..255. mean, deviation: of each colour. convert: other images become RGB first, what is transparent white; without
    it they are an error.
    """

    shortest_edge: int | None = 224
    size: tuple[int, int] | None = None
    resample: Image.Resampling = Image.Resampling.BICUBIC
    crop: tuple[int, int] | None = (224, 224)
    scale: float | None = 1 / 255
    mean: tuple[float, ...] | None = MEAN
    deviation: tuple[float, ...] | None = DEVIATION
    convert: bool = True

    def __post_init__(self) -> None:
        if self.deviation is not None and min(self.deviation) <= 0:
            raise ModelError(f"image_std is {list(self.deviation)}, expected numbers above 0")

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of every image; None where they depend on the image."""
        return self.crop or self.size


def preprocess(picture: bytes, steps: Preprocessing) -> Float32[np.ndarray, "C Y X"]:
    """Compute the pixels of a picture file. Raises ModelError for bytes that are no picture."""
    try:
        with Image.open(io.BytesIO(picture)) as image:
            return pixels(image, steps)
    except (
        OSError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # damaged, or of more pixels than Pillow takes
        raise ModelError(f"not a picture that Pillow reads ({len(picture):,} bytes): {error}") from error


def pixels(image: Image.Image, steps: Preprocessing) -> Float32[np.ndarray, "C Y X"]:
    """Compute the pixels of an image. Raises ModelError for one that is not RGB where `steps` converts none."""
    if steps.convert:
        image = to_rgb(image)
    if image.mode != "RGB":
        raise ModelError(f"the image is {image.mode}, and do_convert_rgb is false: expected RGB")
    target = resized_size(image.height, image.width, steps)
    if target is not None:
        image = image.resize(target[::-1], steps.resample)
    values_yxc = np.asarray(image)
    if steps.crop is not None:
        values_yxc = centre(values_yxc, steps.crop)
    values_yxc = values_yxc.astype(np.float32)
    if steps.scale is not None:
        values_yxc *= np.float32(steps.scale)
    if steps.mean is not None and steps.deviation is not None:
        values_yxc = (values_yxc - np.array(steps.mean, np.float32)) / np.array(steps.deviation, np.float32)
    return np.ascontiguousarray(values_yxc.transpose(2, 0, 1))


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB, laid on white where it is transparent."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def resized_size(height: int, width: int, steps: Preprocessing) -> tuple[int, int] | None:
    """Height and width after resizing; the longer edge is rounded down.

    In:  6000 high, 1280 wide, shortest edge 224
    Out: (1050, 224)
    """
    if steps.shortest_edge is None:
        return steps.size
    short, long = sorted((height, width))
    other = int(steps.shortest_edge * long / short)
    return (other, steps.shortest_edge) if width <= height else (steps.shortest_edge, other)


def centre(values_yxc: UInt8[np.ndarray, "Y X C"], crop: tuple[int, int]) -> UInt8[np.ndarray, "V W C"]:
    """Crop an image to its middle, (height, width) large, with zeros around an image that is smaller.

    In:  the columns 1 2 3 4, width 2; the column 1, width 4
    Out: 2 3; 0 0 1 0
    """
    for axis, wanted in enumerate(crop):
        found = values_yxc.shape[axis]
        if wanted > found:
            before = math.ceil((wanted - found) / 2)
            around = [(0, 0)] * 3
            around[axis] = (before, wanted - found - before)
            values_yxc = np.pad(values_yxc, around)
        else:
            first = (found - wanted) // 2
            values_yxc = np.take(values_yxc, range(first, first + wanted), axis=axis)
    return values_yxc


def preprocessing_from_hf(source: str | Path | Mapping[str, Any]) -> Preprocessing:
    """Read the steps that a directory's `preprocessor_config.json` names (or `processor_config.json`, under
    "image_processor", as transformers 5 writes it), or a dictionary of the kind.

    Raises ModelError where the file is missing or asks for what is not computed here.
    """
    if isinstance(source, Mapping):
        return _from_dict(source)
    directory = Path(source)
    path = next((directory / name for name in (OWN_FILE, PROCESSOR_FILE) if (directory / name).is_file()), None)
    if path is None:
        raise ModelError(f"{directory}: holds neither {OWN_FILE} nor {PROCESSOR_FILE}; they say how images are resized")
    raw = read_object(path)
    try:
        if path.name == PROCESSOR_FILE:
            nested = raw.get("image_processor")
            if not isinstance(nested, Mapping):
                raise ModelError(f"image_processor is {format_value(nested)}, expected an object")
            return _from_dict(nested)
        return _from_dict(raw)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _from_dict(raw: Mapping[str, Any]) -> Preprocessing:
    kind = raw.get("image_processor_type", raw.get("feature_extractor_type", KINDS[0]))
    if kind not in KINDS:
        raise ModelError(f"image_processor_type is {format_value(kind)}, expected one of {', '.join(KINDS)}")
    if raw.get("do_pad"):
        raise ModelError("do_pad is set; images are resized and cropped, not padded")
    raw = {**DEFAULTS, **raw}
    resizes, crops, scales, normalises, converts = (flag(raw, f"do_{step}") for step in STEPS)
    edge, size = _size(raw["size"], "size", "shortest_edge") if resizes else (None, None)
    _, crop = _size(raw["crop_size"], "crop_size", None) if crops else (None, None)
    return Preprocessing(
        shortest_edge=edge,
        size=size,
        resample=Image.Resampling(count(raw, "resample", least=0, most=5)),
        crop=crop,
        scale=number(raw, "rescale_factor") if scales else None,
        mean=_colours(raw, "image_mean") if normalises else None,
        deviation=_colours(raw, "image_std") if normalises else None,
        convert=converts,
    )


def _size(value: Any, name: str, edge: str | None) -> tuple[int | None, tuple[int, int] | None]:
    """(shortest edge, None) or (None, (height, width)). A plain number is the length of `edge`, or of both sides."""
    plain = {"height": value, "width": value} if edge is None else {edge: value}
    sides = value if isinstance(value, Mapping) else plain
    given = {f"{name}.{key}": length for key, length in sides.items() if length is not None}
    for key in given:
        count(given, key, most=MAX_SIDE)
    if given.keys() == {f"{name}.height", f"{name}.width"}:
        return None, (given[f"{name}.height"], given[f"{name}.width"])
    if edge is not None and given.keys() == {f"{name}.{edge}"}:
        return given[f"{name}.{edge}"], None
    expected = "height and width" if edge is None else f"{edge}, or height and width"
    raise ModelError(f"{name} is {format_value(value)}, expected {expected}")


def _colours(raw: Mapping[str, Any], name: str) -> tuple[float, ...]:
    value = raw[name]
    numbers = value if isinstance(value, list | tuple) else [value] * 3
    if len(numbers) != 3:
        raise ModelError(f"{name} is {format_value(value)}, expected three numbers")
    return tuple(number({name: each}, name) for each in numbers)
