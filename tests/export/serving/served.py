"""serve.py in a process of its own, and how to ask it."""

import base64
import json
import os
import pathlib
import subprocess
import sys
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).parents[3]


def start(*arguments, code=None):
    """serve.py with these arguments, or some code in its place."""
    program = ["-c", code] if code else [str(ROOT / "serve.py")]
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )


# Says, when it has ended, which modules it should have done without. The
# package itself, what it needs to be lazy, and what says how settings are
# refused, of the standard library alone, are none of these.
WATCHED = """
import runpy, sys
runpy.run_path("serve.py", run_name="__main__")
own = "meta_pseudo_labels"
harmless = (own, own + "._version", own + ".utils", own + ".utils.lazy",
  own + ".export", own + ".utils.quiet", own + ".utils.registry",
  own + ".utils.versions",
  own + ".utils.settings")
print(sorted({n for n, m in sys.modules.items() if m is not None
  and n.split(".")[0] in ("keras", "tf_keras", own) and n not in harmless
  and not n.startswith(own + ".export.serving")}))
"""


def ask(server, path, content=None, *, body=None):
    """The status and the answer from JSON."""
    if content is not None:
        body = json.dumps(content).encode()
    request = urllib.request.Request(server[1] + path, data=body)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            assert error.headers["Content-Type"].startswith("application/json")
            return error.code, json.load(error)


def b64(encoded):
    return {"b64": base64.b64encode(encoded).decode()}


def memory_mb(process):
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1000
