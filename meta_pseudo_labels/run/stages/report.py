"""The page of a run, report.html."""

from meta_pseudo_labels.run.pages.report import REPORT, write_report
from meta_pseudo_labels.run.stages import STAGES, RunFile, Stage
from meta_pseudo_labels.utils.files import reports_full_disk


@STAGES.register("report")
class Report(Stage):
    help = "Write report.html: how the run went, on one page."
    files = (RunFile(REPORT, "how the run went, on one page"),)

    @staticmethod
    def run(experiment):
        with reports_full_disk(experiment.output_dir):
            print(f"Report: {write_report(experiment.output_dir)}")
