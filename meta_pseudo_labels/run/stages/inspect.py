"""A look at the data of a run, before or after its training."""

import json
import os

from absl import logging

from meta_pseudo_labels.data import inspection
from meta_pseudo_labels.run.config.data import DataSettings
from meta_pseudo_labels.run.data import draw_views
from meta_pseudo_labels.run.folder import DATA, LOOK_ALIKES, VIEWS, RunFolder
from meta_pseudo_labels.run.progress import counted
from meta_pseudo_labels.run.stages import STAGES, RunFile, Stage
from meta_pseudo_labels.utils.deleting import delete
from meta_pseudo_labels.utils.files import reports_full_disk, write_whole


@STAGES.register("inspect")
class Inspect(Stage):
    help = "Look at the data: counts, classes, statistics, views."
    settings = (DataSettings,)
    needs_run = False
    files = (
        RunFile(DATA, "what `inspect` found in the data", early=True),
        RunFile(VIEWS, "the views that the networks see", early=True),
        RunFile(LOOK_ALIKES, "images that may be copies", early=True),
    )

    @staticmethod
    def run(experiment):
        print(experiment.inspect())
        views = experiment.folder.path(VIEWS)
        if os.path.exists(views):
            print(f"Views: {views}")


def inspect_run(config, images):
    """Looks at the data; see `Experiment.inspect`.

    Args:
      config: `Config` of the run.
      images: `data.ImageData` or `data.ShardedData`.
    """
    folder = RunFolder(config.output_dir)
    with counted("inspect", 2, 0, config, unit="look") as count:
        pairs = inspection.find_look_alikes(images)
        count(1)
        found = inspection.inspect(images, pairs)
        count(1)
    os.makedirs(folder, exist_ok=True)
    with reports_full_disk(folder):
        write_whole(folder.path(DATA), json.dumps(found, indent=2))
        delete(folder.path(VIEWS), folder.path(LOOK_ALIKES))  # Earlier ones.
        try:
            draw_views(config, images, folder.path(VIEWS))
            if pairs:
                path = folder.path(LOOK_ALIKES)
                inspection.draw_look_alikes(images, path, pairs)
        except ImportError as error:  # matplotlib is missing.
            logging.warning("%s", error)
    return inspection.as_text(found)
