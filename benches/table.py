"""A table of figures: contenders, rounds, ratios."""

import statistics

from servers import PROGRAMS, Failed, say


class Table:
    """One figure of several contenders. `measure(bench, contender, secs)` gives it, and what else wsload found."""

    def __init__(self, name, title, unit, contenders, base, measure, secs, digits=2, extra=None,
                 more_is_better=False):  # fmt: skip
        """`extra` is one more column: its heading, what wsload calls it, and its digits; the median is shown."""
        self.name, self.title, self.unit = name, title, unit
        self.contenders, self.base, self.measure = contenders, base, measure
        self.secs, self.digits, self.extra, self.more_is_better = secs, digits, extra, more_is_better
        self.values = {contender: [] for contender in contenders}
        self.found = {contender: [] for contender in contenders}

    def round(self, bench, number, quick):
        """One round of all contenders; each begins one later than in the round before."""
        shift = number % len(self.contenders)
        for contender in self.contenders[shift:] + self.contenders[:shift]:
            value, found = self.measure(bench, contender, self.secs / 2 if quick else self.secs)
            if not value > 0:
                raise Failed(f"{contender}: {self.name} is {value}")
            self.values[contender].append(value)
            self.found[contender].append(found)
            say(f"  {self.name:18} {contender:32} {value:.{self.digits}f} {self.unit}")

    def ratio(self, contender, base):
        """The median of the rounds' own ratios: what slows a whole round down falls out of it."""
        return statistics.median(a / b for a, b in zip(self.values[contender], self.values[base]))

    def lines(self):
        yield f"### {self.title}"
        yield ""
        head = f"| | {self.unit}, median | lowest to highest |"
        rule = "|---|---:|---:|"
        if self.base:
            head += f" x {self.base} |"
            rule += "---:|"
        if self.extra:
            head += f" {self.extra[0]} |"
            rule += "---:|"
        yield head
        yield rule
        for contender, values in self.values.items():
            d = self.digits
            row = f"| {contender} | {statistics.median(values):,.{d}f} | {min(values):,.{d}f} to {max(values):,.{d}f} |"
            if self.base:
                row += f" {self.ratio(contender, self.base):.2f} |"
            if self.extra:
                _, key, digits = self.extra
                row += f" {statistics.median(found[key] for found in self.found[contender]):,.{digits}f} |"
            yield row
        yield ""


def parts(contender):
    """'wsgate, relay' is the program and the variant."""
    program, _, variant = contender.partition(", ")
    return program, variant


def having(bench, contenders):
    """Those whose program is there."""
    path = {"floor": bench.wsload} | {name: getattr(bench, name) for name in PROGRAMS}
    return [contender for contender in contenders if path[parts(contender)[0]]]
