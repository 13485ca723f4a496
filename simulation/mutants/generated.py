"""Draws mutants from those that cargo-mutants lists, and inserts them into the sources of the work copy.

cargo-mutants would build the library once for each mutant. Here, all of them are in one binary, like the patches that
are written by hand: each changed expression becomes `if mutant(NAME) { CHANGED } else { ORIGINAL }`.
"""

import json
import random
import re
import subprocess

# Files of which a change affects a checkout, an outcome, a count or a deadline, with the functions that decide it.
FUNCTIONS = {
    "src/discovery/confirm.rs": "answer absences negative",
    "src/discovery/family.rs": "merge keep",
    "src/health/absence.rs": "serves standings unserved",
    "src/health/alternative.rs": "alternatives",
    "src/health/candidates.rs": "kind wanted candidates",
    "src/health/fencing.rs": "record verdicts",
    "src/health/lag.rs": "judge",
    "src/health/local.rs": "was_late is_overdue",
    "src/health/state.rs": "apply passing",
    "src/health/suspicion.rs": "session_ended responded",
    "src/pool/checkout/error.rs": "fail_early fails_early",
    "src/pool/checkout/mod.rs": "checkout wait ready fits within",
    "src/pool/checkout/ping.rs": "run",
    "src/pool/checkout/retry.rs": "retry classify kept_role",
    "src/pool/checkout/wait.rs": "queue announce serve_waiters serve_waiters_of",
    "src/pool/directory/absence.rs": "set_absent judge_absences drain_absent is_detached",
    "src/pool/directory/health.rs": "apply apply_probe on_evidence abort_unresponsive next_abort",
    "src/pool/directory/member.rs": "eligibility is_sound serves claim is_late standby probe_passed abort_unresponsive",
    "src/pool/directory/membership.rs": "on_resolved known set_known replace_members",
    "src/pool/directory/roles.rs": "on_role judge_claims judge",
    "src/pool/opener/plan.rs": "cover_waiters cover_deficits can_open has_capacity",
    "src/pool/pod/client.rs": "is_stale is_ready begin_use retire return_to_pool",
    "src/pool/pod/conn.rs": "is_current is_expired is_reusable",
    "src/pool/pod/connection_limit.rs": "of available try_acquire release",
    "src/pool/pod/deposit.rs": "put settle take known",
    "src/pool/pod/mod.rs": "try_take check_in close_checked_out park on_check_in act_on close purge close_idle"
    " take_permit release_permit permits open end_opening",
    "src/pool/pod/recycle.rs": "run clean_up",
    "src/pool/pod/reset.rs": "is_due was_used_with_discard reset clear_cache",
    "src/pool/pod/wait_queue.rs": "enter hand_over serve has_match pop update_mask count reevaluate close woken",
}

# Mutants that are not drawn, by the text of cargo-mutants.
EXCLUDED = re.compile(
    r"metrics|stats|Debug|Display|fmt|jitter|/tests/|/model/|fuzz|testkit"
    # Values that no test needs to tell apart: a time that is equal to a limit is a coincidence of one instant.
    r"|replace < with <=|replace > with >=|replace <= with <|replace >= with >"
    # Arithmetic that has no meaning for times and counts, and that mostly does not compile.
    r"|with [*/%]=? |replace [*/%]=? "
    # Values of types that have no default.
    r"|Default::default|leak|iter::|from_iter|::new\("
)
# Lines that decide only when something is checked again, how long unused connections stay open, or what is logged.
EXCLUDED_LINES = re.compile(r"exceeds_in|slots_changed|dials_within|recheck_at|linger_ends|drained_by|tracing|outdated")
VALUE = re.compile(r"\(\)|true|false|0|1|None|vec!\[\]|Ok\(\(\)\)|Some\((true|false|0|1)\)")

TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r?"(?:\\.|[^"\\])*"|b?'(?:\\[^\n]{1,8}?|[^'\\])'|'\w+|\w+"""
    r"""|\.\.=|<<=|>>=|\.\.|::|->|=>|==|!=|<=|>=|&&|\|\||<<|>>|\+=|-=|\*=|/=|\|=|&=|\S""",
    re.S,
)
OPEN, CLOSE = "([{", ")]}"
# Operators from the weakest to the strongest. An operand contains only stronger ones.
LEVELS = [level.split() for level in ("||", "&&", "== != < > <= >=", "|", "^", "&", "<< >>", "+ -", "* / %")]
# Tokens that no operand contains.
STOPS = set(", ; : = => -> .. ..= += -= |= return if while match let else in".split())


def listed(root):
    """Returns the mutants that can be drawn."""
    command = ["cargo", "mutants", "--list", "--json"]
    for folder in ("pool", "health", "discovery"):
        command += ["-f", f"src/{folder}/**"]
    text = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
    found, lines = [], {}
    for mutant in json.loads(text):
        if mutant["file"] not in lines:
            lines[mutant["file"]] = (root / mutant["file"]).read_text().split("\n")
        line = lines[mutant["file"]][mutant["span"]["start"]["line"] - 1]
        function = mutant["function"] and mutant["function"]["function_name"].split("::")[-1]
        is_decision = function in FUNCTIONS.get(mutant["file"], "").split()
        is_value = mutant["genre"] != "FnValue" or VALUE.fullmatch(mutant["replacement"])
        is_excluded = EXCLUDED.search(mutant["name"]) or mutant["genre"] != "FnValue" and EXCLUDED_LINES.search(line)
        if is_decision and is_value and mutant["genre"] != "StructField" and not is_excluded:
            found.append(mutant)
    return sorted(found, key=lambda mutant: mutant["name"])


class Source:
    """The text of a file with its tokens."""

    def __init__(self, text):
        self.text = text
        self.lines = [0]
        self.lines += [at.end() for at in re.finditer("\n", text)]
        self.tokens = [m for m in TOKEN.finditer(text) if not m.group().startswith(("//", "/*"))]
        self.edits = []

    def offset(self, place):
        return self.lines[place["line"] - 1] + place["column"] - 1

    def token_at(self, offset):
        return next((i for i, token in enumerate(self.tokens) if token.start() == offset), None)

    def is_binary(self, index):
        """Returns true if the operator at the index has a left operand."""
        before = self.tokens[index - 1].group()
        is_word = re.fullmatch(r"\w+", before) and before not in STOPS
        return bool(is_word) or before[0] in "\"'" or before in (")", "]", "?")

    def stops(self, token, index, allowed):
        if token in STOPS or token == "|" and "|" not in allowed:
            return True
        is_operator = any(token in level for level in LEVELS)
        return is_operator and token not in allowed and self.is_binary(index)

    def operand(self, index, step, allowed):
        """Returns the index of the last token of the operand that begins beside the operator at the index."""
        depth, last, at = 0, None, index + step
        inner, outer = (OPEN, CLOSE) if step > 0 else (CLOSE, OPEN)
        while True:
            token = self.tokens[at].group()
            if depth == 0:
                is_block = token == "{" if step > 0 else token == "}" and self.tokens[at + 1].group() not in (".", "?")
                if token in outer or is_block or self.stops(token, at, allowed):
                    return last
            depth += (token in inner) - (token in outer)
            if depth == 0:
                last = at
            at += step

    def binary(self, index, operator):
        """Returns the span of an expression and its operands."""
        level = next((i for i, level in enumerate(LEVELS) if operator in level), None)
        if level is None:  # an assignment
            left_allowed = right_allowed = {token for level in LEVELS for token in level}
        else:
            right_allowed = {token for level in LEVELS[level + 1:] for token in level}
            left_allowed = right_allowed | set(LEVELS[level])
            if operator != "|":
                left_allowed.discard("|")  # the end of the parameters of a closure
        first, last = self.operand(index, -1, left_allowed), self.operand(index, 1, right_allowed)
        if first is None or last is None:
            return None
        start, end = self.tokens[first].start(), self.tokens[last].end()
        operator = self.tokens[index]
        return start, end, self.text[start:operator.start()], self.text[operator.end():end]

    def insert(self, mutant, name, patched):
        """Inserts a mutant. Returns false if this is not possible. `patched` has the lines of the patches."""
        selected = f'crate::system::mutant("{name}")'
        start, end = self.offset(mutant["span"]["start"]), self.offset(mutant["span"]["end"])
        genre, changed = mutant["genre"], mutant["replacement"]
        if genre == "FnValue":
            edit = (start, start, f"if {selected} {{ return {changed}; }} ")
        elif genre == "MatchArmGuard":
            guard = self.text[start:end]
            text = f"({selected} || ({guard}))" if changed == "true" else f"(!{selected} && ({guard}))"
            edit = (start, end, text)
        elif genre == "MatchArm":
            depth, at = 0, self.token_at(start)
            while at is not None and not (depth == 0 and self.tokens[at].group() in ("=>", "if")):
                depth += (self.tokens[at].group() in OPEN) - (self.tokens[at].group() in CLOSE)
                at += 1
            if at is None or self.tokens[at].group() == "if":
                return False
            edit = (self.tokens[at].start(), self.tokens[at].start(), f"if !{selected} ")
        elif genre == "UnaryOperator" and self.text[start] == "!":
            edit = (start, end, f"{selected} ^ !")
        elif genre == "BinaryOperator":
            index = self.token_at(start)
            found = index and self.binary(index, self.text[start:end])
            if not found:
                return False
            first, last, left, right = found
            text = f"if {selected} {{ {left}{changed}{right} }} else {{ {left}{self.text[start:end]}{right} }}"
            edit = (first, last, text if changed in ("+=", "-=") else f"({text})")
        else:
            return False
        if any(edit[0] < other[1] and other[0] < edit[1] or edit[0] == other[0] for other in self.edits):
            return False  # two changes of one expression
        lines = [self.text.count("\n", 0, offset) + 1 for offset in edit[:2]]
        if any(line in patched for line in range(lines[0], lines[1] + 1)):
            return False
        self.edits.append(edit)
        return True

    def result(self):
        text = self.text
        for start, end, new in sorted(self.edits, reverse=True):
            text = text[:start] + new + text[end:]
        return text


def insert(tree, mutants, count, seed, rejected, patched):
    """Inserts `count` mutants that are drawn with the seed into the files of `tree`. Returns their texts by name.

    `rejected` has the texts of mutants that do not compile, and `patched` the lines of each file that patches change.
    """
    drawn, sources = {}, {}
    order = random.Random(seed)
    mutants = mutants[:]
    order.shuffle(mutants)
    for mutant in mutants:
        if len(drawn) == count:
            break
        if mutant["name"] in rejected:
            continue
        path = tree / mutant["file"]
        source = sources.setdefault(path, Source(path.read_text()))
        name = f"generated-{len(drawn) + 1:02}"
        if source.insert(mutant, name, patched.get(mutant["file"], ())):
            drawn[name] = mutant["name"]
    for path, source in sources.items():
        path.write_text(source.result())
    return drawn
