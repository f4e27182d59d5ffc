"""Folders of small images, each of one level of gray."""

import tensorflow as tf

from meta_pseudo_labels import data


def write(path, shade, *, size=(8, 8)):
    """A PNG of one level of gray, by which it is known again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = tf.fill([*size, 3], tf.cast(shade, tf.uint8))
    path.write_bytes(tf.io.encode_png(image).numpy())


def write_folders(root):
    """Three classes of two images, two of them in the test; four unlabeled."""
    for label, name in enumerate(["ant", "bee", "cow"]):
        for image in range(2):
            write(root / "labeled" / name / f"{image}.png", 10 * label + image)
    for label, name in ((0, "ant"), (2, "cow")):
        write(root / "eval" / name / "0.png", 100 + label)
    for image, name in enumerate(["b.png", "a/z.png", "a/b/c.png", "c.dat"]):
        write(root / "unlabeled" / name, 200 + image)


def load(root, **settings):
    defaults = dict(
        labeled_dir=str(root / "labeled"),
        unlabeled_dir=root / "unlabeled",
        eval_dir=root / "eval",
        image_size=8,
        num_labeled=None,
        seed=0,
    )
    return data.load("folders", **defaults | settings)


def run_settings(root, *, tested=False):
    """Settings of a run on these folders.

    Args:
      root: where `write_folders` wrote them.
      tested: whether it has test images.
    """
    found = dict(
        dataset="folders",
        labeled_dir=str(root / "labeled"),
        unlabeled_dir=str(root / "unlabeled"),
        image_size=8,
    )
    return found | (dict(eval_dir=str(root / "eval")) if tested else {})


def shades(images):
    return images[:, 0, 0, 0].tolist()
