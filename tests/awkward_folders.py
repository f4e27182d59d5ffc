"""Folders of pictures as they come: names, kinds, links and litter, by a seed.

`make` writes one and says what is to be made of it, by Pillow and NumPy alone.
"""

import dataclasses
import io
import os
import shutil
import unicodedata

import numpy as np
from PIL import Image, ImageOps

from tests.pictures import deep, encoded, turned

SIZE = 16  # Pixels; every picture is square, so that none is resized.

# Names of classes and of files: scripts, forms of Unicode, signs.
WORDS = [
    *("cat", "$5_to_$10", "100%s", "{0}", "a b", "-n", "#1", "x&y", "it's"),
    *("caf\u00e9", "\u00df", "\u0130", "\u4e2d\u6587", "\ud55c\uae00"),
    *("\u0431\u0430\u0431", "\u0639\u0631\u0628", "\u05e2\u05d1"),
    *("\u0939\u093f\u0928\u094d", "\u0e44\u0e17\u0e22", "\U0001f431"),
    *("\U0001f469\u200d\U0001f52c", "Vi\u1ec7t", "c\u0327\u0301", "=1+1", "~"),
]
FILE_WORDS = [
    *WORDS,
    "two\nlines",
    "tab\t",
    os.fsdecode(b"\xff\xfe"),
    "n" * 200,
]
LITTER = [
    *(".DS_Store", "._1.jpg", "Thumbs.db", "desktop.ini", "Icon\r", "x.part"),
    *("@eaDir/1.jpg/S.jpg", "#recycle/1.png", "__MACOSX/._1.png", "1.jpg~"),
    *(".Trashes/1.png", "$RECYCLE.BIN/$R1.png", "lost+found/#12", "M.THM"),
]


@dataclasses.dataclass
class Picture:
    """A file; its image [SIZE, SIZE, 3] uint8, or what is said without one."""

    data: bytes
    image: np.ndarray | None = None
    levels: np.ndarray | None = None  # Of 16 bits.


@dataclasses.dataclass
class Awkward:
    """What is written, and what is to be made of it.

    The parts are lists of (name within the folder, class or None, `Picture`),
    in the order in which they are to be read.
    """

    root: str
    labeled: list
    unlabeled: list
    test: list
    classes: list
    passed_over: int

    def images(self, part):
        """[N, SIZE, SIZE, 3] uint8 of what can be used."""
        found = [
            p.image for *_, p in getattr(self, part) if p.image is not None
        ]
        return np.array(found, np.uint8).reshape(-1, SIZE, SIZE, 3)

    def labels(self, part):
        return [
            self.classes.index(label)
            for _, label, picture in getattr(self, part)
            if picture.image is not None
        ]

    def skipped(self):
        return sum(
            picture.image is None
            for part in (self.labeled, self.unlabeled, self.test)
            for *_, picture in part
        )

    def copies(self):
        """How many images are in two parts, or have two classes."""
        test, labeled, unlabeled = (
            {image.tobytes() for image in self.images(part)}
            for part in ("test", "labeled", "unlabeled")
        )
        classes = {}
        for part in ("labeled", "test"):
            for image, label in zip(
                self.images(part), self.labels(part), strict=True
            ):
                classes.setdefault(image.tobytes(), set()).add(label)
        twice = [found for found in classes.values() if len(found) > 1]
        return {
            "test images that are unlabeled images too": len(test & unlabeled),
            "test images that are labeled images too": len(test & labeled),
            "images with two classes": len(twice),
        }

    def settings(self):
        return {
            f"{part}_dir": f"{self.root}/{part}"
            for part in ("labeled", "unlabeled", "eval")
        }


def kinds(random):
    """A function for each sort of picture; each call draws another picture."""

    def pixels():
        return random.randint(0, 256, [SIZE, SIZE, 3]).astype(np.uint8)

    def by_pillow(data):
        image = Image.open(io.BytesIO(data))
        image.seek(0)
        image = ImageOps.exif_transpose(image)
        return Picture(data, np.array(image.convert("RGB")))

    def saved(kind, mode=None, **settings):
        return lambda: by_pillow(encoded(pixels(), kind, mode, **settings))

    def palette(kind):
        image = Image.fromarray(pixels()).quantize(16)
        file = io.BytesIO()
        image.save(file, kind, transparency=image.getpixel((0, 0)))
        # Pillow has no other word for the color that is stored.
        return Picture(file.getvalue(), np.array(image.convert("RGB")))

    def turn(number, kind):
        return lambda: by_pillow(turned(number, kind, pixels()))

    def sixteen_bits():
        levels = random.randint(100, 4000, [SIZE, SIZE]).astype(np.uint16)
        return Picture(deep(levels), levels=levels)

    def frames(kind):
        return lambda: by_pillow(encoded([pixels() for _ in range(3)], kind))

    return {
        "JPEG": saved("JPEG"),
        "progressive": saved("JPEG", progressive=True),
        "gray JPEG": saved("JPEG", "L"),
        "CMYK": saved("JPEG", "CMYK"),
        "MPO": frames("MPO"),
        "PNG": saved("PNG"),
        "LA": saved("PNG", "LA"),
        "RGBA": saved("PNG", "RGBA"),
        "1 bit": saved("PNG", "1"),
        "APNG": frames("PNG"),
        "palette PNG": lambda: palette("PNG"),
        "palette GIF": lambda: palette("GIF"),
        "GIF": frames("GIF"),
        "BMP": saved("BMP"),
        "WebP": saved("WEBP", lossless=True),
        "WebP animation": lambda: by_pillow(
            encoded([pixels() for _ in range(3)], "WEBP", lossless=True)
        ),
        "16 bits": sixteen_bits,
        **{
            f"{kind} {number}": turn(number, kind)
            for kind in ("JPEG", "PNG", "WEBP")
            for number in range(1, 9)
        },
        "empty": lambda: Picture(b""),
        "text": lambda: Picture(b"no image"),
        "TIFF": lambda: Picture(encoded(pixels(), "TIFF")),
        "half": lambda: Picture(encoded(pixels(), "PNG")[:400]),
        "huge": lambda: Picture(_huge()),
    }


def _huge():
    """A PNG that says it has 10 billion pixels."""
    data = bytearray(encoded(np.zeros([8, 8, 3], np.uint8)))
    data[16:24] = (10**5).to_bytes(4, "big") * 2
    return bytes(data)


def make(root, seed):
    """Writes a folder by a seed, and returns it as `Awkward`."""
    random = np.random.RandomState(seed)
    sorts = list(kinds(random).values())
    usable = kinds(random)["PNG"]
    drawn = random.choice(len(WORDS), 3, replace=False)
    classes = [unicodedata.normalize("NFC", WORDS[i]) for i in drawn]
    made = Awkward(str(root), [], [], [], sorted(classes), 0)
    for part, folder in (("labeled", "labeled"), ("test", "eval")):
        inner = os.path.join(root, folder)
        for name in made.classes:
            forms = {
                unicodedata.normalize(form, name)
                for form in ("NFC", "NFD")[: random.randint(1, 3)]
            }
            for form in sorted(forms):
                found = [usable(), *_some(sorts, random)]
                getattr(made, part).extend(
                    _write(inner, form, name, found, random)
                )
    inner = os.path.join(root, "unlabeled")
    found = [usable(), *_some(sorts, random)]
    made.unlabeled = _write(inner, "", None, found, random)
    _copy_some(made, random)
    for folder in ("labeled", "unlabeled", "eval"):
        made.passed_over += _litter(os.path.join(root, folder), random)
    _spread(made)
    return made


def _some(sorts, random):
    return [sorts[i]() for i in random.choice(len(sorts), random.randint(2, 7))]


def _write(folder, form, label, pictures, random):
    """Writes pictures under awkward names, some of them deeper.

    Args:
      folder: to write to, or to a folder in it that is called `form`.
      form: what a class is called here; or "".
      label: of the class, as it is called everywhere; or None.
      pictures: list of `Picture`.
      random: draws the names.

    Returns:
      See `Awkward`.
    """
    found = {}
    for number, picture in enumerate(pictures):
        name = f"{FILE_WORDS[random.randint(len(FILE_WORDS))]}{number}"
        name += random.choice(["", ".jpg", ".PNG", ".gif"])
        deeper = random.choice(["", "a", "b\u00e9/\u4e2d"])
        found[os.path.join(deeper, name)] = picture
    for name, picture in found.items():
        path = os.path.join(folder, form, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(picture.data)
    return [
        (os.path.join(form, name), label, found[name]) for name in sorted(found)
    ]


def _copy_some(made, random):
    """Copies a labeled picture to the test, or to the unlabeled ones."""
    _, _, picture = made.labeled[random.randint(len(made.labeled))]
    for part, folder in (("test", "eval"), ("unlabeled", "unlabeled")):
        if random.randint(2) or picture.levels is not None:
            continue
        entries = getattr(made, part)
        last, label, _ = entries[-1]
        # A name behind all others.
        name = os.path.join(os.path.dirname(last), "\U0010fffd")
        with open(os.path.join(made.root, folder, name), "wb") as file:
            file.write(picture.data)
        entries.append((name, label, picture))
        if part == "unlabeled":
            entries.sort(key=lambda entry: entry[0])


def _litter(folder, random):
    """Leaves some of what systems leave; how many names at the top."""
    chosen = random.choice(len(LITTER), 4, replace=False)
    for path in (os.path.join(folder, LITTER[i]) for i in chosen):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(encoded(np.zeros([SIZE, SIZE, 3], np.uint8)))
    return len(chosen)


def _spread(made):
    """Gives pictures of 16 bits the images that they are to become."""
    learned = [
        p.levels
        for *_, p in (*made.labeled, *made.unlabeled)
        if p.levels is not None
    ]
    for *_, picture in (*made.labeled, *made.unlabeled, *made.test):
        if picture.levels is None:
            continue
        if not learned:  # Then nobody knows what they mean.
            continue
        low, high = min(map(np.min, learned)), max(map(np.max, learned))
        share = (picture.levels.astype(float) - low) / (high - low)
        gray = np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)
        picture.image = np.repeat(gray[..., np.newaxis], 3, axis=-1)


def link(made, source, target, *, hard):
    """Puts one file in two places."""
    target = os.path.join(made.root, target)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    (os.link if hard else os.symlink)(os.path.join(made.root, source), target)


def remove(made):
    shutil.rmtree(made.root)
