"""Runs cases of the Autobahn fuzzing client against one URL on this machine.

    fuzz.py ENVIRONMENT OUTPUT URL CASE...

ENVIRONMENT is made by `setup`; a CASE is a pattern such as 1.* or 9.3.1. The cases are dealt to JOBS processes
(environment; default 4), because most of them wait. Prints one line, then the cases that failed. The exit status is 0
only if every case was run and is OK, NON-STRICT or INFORMATIONAL in its behaviour and in its close.
"""

import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import time

GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
AGENT = "target"
LIMIT_SECONDS = 3600

LIST_CASES = """
import json, sys
from autobahntestsuite.caseset import CaseSet
from autobahntestsuite.case import Cases, CaseCategories, CaseSubCategories, CaseBasename, CaseSetname
cases = CaseSet(CaseSetname, CaseBasename, Cases, CaseCategories, CaseSubCategories)
print json.dumps(cases.parseSpecCases(json.loads(sys.argv[1])))
"""


def order(case):
    return [int(number) for number in case.split(".")]


class Share:
    """One process of the fuzzing client, with its share of the cases and a folder for its reports."""

    def __init__(self, environment, folder, url, cases):
        self.folder = folder
        folder.mkdir(parents=True)
        spec = {
            "outdir": str(folder),
            "servers": [{"url": url, "agent": AGENT}],
            "cases": cases,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (folder / "spec.json").write_text(json.dumps(spec))
        self.process = subprocess.Popen(
            [environment / "py2/bin/python", "-u", environment / "py2/bin/wstest", "-m", "fuzzingclient", "-s", "spec.json"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=(folder / "wstest.log").open("w"),
            stderr=subprocess.STDOUT,
        )

    def wait(self, until):
        try:
            return self.process.wait(max(1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            return "the time limit"

    def results(self):
        try:
            return json.loads((self.folder / "index.json").read_text()).get(AGENT, {})
        except (OSError, ValueError):
            return {}


def main():
    environment, output, url, *patterns = sys.argv[1:]
    if not re.match(r"wss?://(127\.|localhost|\[::1\])", url):
        sys.exit(f"loopback only: {url}")
    environment, output = pathlib.Path(environment).resolve(), pathlib.Path(output).resolve()
    spec = json.dumps({"cases": patterns, "exclude-cases": [], "exclude-agent-cases": {}})
    listed = subprocess.run([environment / "py2/bin/python", "-c", LIST_CASES, spec], capture_output=True, text=True, check=True)
    cases = json.loads(listed.stdout)
    jobs = min(int(os.environ.get("JOBS", "4")), len(cases))
    started = time.monotonic()
    shares = []
    try:
        for job in range(jobs):
            shares.append(Share(environment, output / str(job), url, cases[job::jobs]))
        statuses = [share.wait(started + LIMIT_SECONDS) for share in shares]
    finally:
        for share in shares:
            share.process.kill()
    results = {}
    for share in shares:
        results.update({case: dict(result, folder=share.folder) for case, result in share.results().items()})
    missing = [case for case in cases if case not in results]
    bad = [case for case in sorted(results, key=order) if {results[case]["behavior"], results[case]["behaviorClose"]} - GOOD]
    passed = bool(cases) and not missing and not bad and not any(statuses)
    counts = collections.Counter(result["behavior"] for result in results.values())
    print(
        f"autobahn {'PASS' if passed else 'FAIL'} {url}: {len(results)} of {len(cases)} cases, "
        + ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        + f", {len(bad)} failed, {len(missing)} missing, {time.monotonic() - started:.0f} s"
    )
    for case in bad:
        result = results[case]
        report = (result["folder"] / result["reportfile"]).with_suffix(".html")
        print(f"  {case}: behaviour {result['behavior']}, close {result['behaviorClose']}, {report}")
    if missing:
        print(f"  missing: {' '.join(missing[:40])}; processes ended with {statuses}, see wstest.log in {output}")
    sys.exit(0 if passed else 1)


main()
