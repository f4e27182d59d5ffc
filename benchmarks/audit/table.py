"""Writes the table of docs/audit.md from benchmarks/results/audit.json.

python -m benchmarks.audit.table
"""

import json

import numpy as np

from benchmarks.common.documents import with_part
from benchmarks.common.machine import RESULTS, ROOT, headline

DOCUMENT = ROOT / "docs" / "audit.md"
ROWS = RESULTS / "audit.json"
# A gradient whose norm is below this share of the true one's is rounding.
ZERO = 1e-12
QUANTILE = 1.96  # Of the normal distribution, for 95 %.


def main():
    report = json.loads(ROWS.read_text(encoding="utf-8"))
    text = DOCUMENT.read_text(encoding="utf-8")
    text = with_part(text, "audit", table(report))
    DOCUMENT.write_text(text, encoding="utf-8")


def summary(measured):
    """A row for each implementation.

    Args:
      measured: {name: [(gradient of the feedback, true gradient), ...]}, flat;
        a draw whose true gradient is 0 does not count.

    Returns:
      Dicts for JSON: `largest_ratio` of the norms, `cosine` (mean over draws)
      and `interval` (95 %), both None if the gradient is zero, and `draws`.
    """
    rows = []
    for name, pairs in measured.items():
        pairs = [(g, true) for g, true in pairs if np.any(true)]
        norms = np.array([[np.linalg.norm(x) for x in pair] for pair in pairs])
        ratios = norms[:, 0] / norms[:, 1]
        row = {"name": name, "draws": len(pairs), "cosine": None}
        row |= {"interval": None, "largest_ratio": float(ratios.max())}
        if row["largest_ratio"] > ZERO:
            dots = np.array([g @ true for g, true in pairs])
            cosines = dots / np.maximum(norms.prod(axis=1), 1e-300)
            error = QUANTILE * cosines.std(ddof=1) / np.sqrt(len(cosines))
            mean = float(cosines.mean())
            row["cosine"] = mean
            row["interval"] = [mean - error, mean + error]
        rows.append(row)
    return rows


def sign(row):
    """Compared with the true gradient: "right", "reversed", "unclear", ""."""
    if row["cosine"] is None:
        return ""
    low, high = row["interval"]
    if low <= 0 <= high:
        return "unclear"
    return "right" if low > 0 else "reversed"


def table(report):
    """The table in Markdown, and the machine and code that measured it."""
    lines = [
        "| estimator | gradient | sign | cosine | 95 % | draws |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        zero = row["cosine"] is None
        cells = ["zero", "", "", ""] if zero else ["there", sign(row)]
        if not zero:
            low, high = row["interval"]
            cells += [f"{row['cosine']:.3f}", f"{low:.3f} to {high:.3f}"]
        cells = [f"`{row['name']}`", *cells, str(row["draws"])]
        lines.append(f"| {' | '.join(cells)} |")
    facts = f"{headline(report['machine'])}; code at {report['revision']}."
    return "\n".join([*lines, "", facts, ""])


if __name__ == "__main__":
    main()
