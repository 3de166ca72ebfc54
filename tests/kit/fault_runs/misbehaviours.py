"""Every way in which the stand-ins of Claude and mem0 can misbehave, by name."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from tests.kit.claude_api import scripted_answers as claude_answers
from tests.kit.claude_api.scripted_answers import ServerFault
from tests.kit.mem0_api import scripted_answers as mem0_answers
from tests.kit.mem0_api.scripted_answers import HTML
from tests.kit.servers.scripted_http_server import Cue

#: What a row of someone else says; it must reach nobody.
FOREIGN = "buried treasure"

#: Longer than any time limit of a run.
_TOO_LONG_S = 0.5
_LATE_S = 0.05

_STRAY = {"id": "stray", "memory": FOREIGN, "user_id": "default/zed", "score": 1.0}


@dataclass(frozen=True)
class Misbehaviour:
    """One misbehaviour: an answer that one of the two will give to one request."""

    name: str
    play: claude_answers.ClaudeAnswer | mem0_answers.Mem0Answer


def _claude() -> dict[str, claude_answers.ClaudeAnswer]:
    play = claude_answers.ClaudeAnswer
    statuses = (400, 401, 402, 403, 404, 413, 429, 500, 502, 503, 504, 529)
    found = {
        f"{fault} at {at}": play(fault=fault, at=at) for fault in ServerFault for at in (0, 3, 9)
    }
    found |= {str(status): play(status=status) for status in statuses}
    found |= {f"stop {why}": play(stop_reason=why) for why in ("max_tokens", "refusal", None)}
    return found | {
        "429 wait": play(status=429, headers={"retry-after": "0.05"}),
        "no JSON": play(status=500, raw_body="oops"),
        "late": play(delay_s=_LATE_S),
        "too late": play(delay_s=_TOO_LONG_S),
        "slow first": play(first_s=_TOO_LONG_S),
        "dripping": play(gap_s=_LATE_S),
        "thinking": play(thinking="hm"),
        "no text": play(text=""),
    }


def _mem0(verb: str | None) -> dict[str, mem0_answers.Mem0Answer]:
    play = mem0_answers.Mem0Answer(verb=verb)
    statuses = (302, 400, 401, 403, 408, 413, 418, 425, 429, 500, 502, 503, 504, 529)
    bodies = {"HTML": HTML, "half": '{"results": [{"mem', "null": "null", "types": '{"results": 7}'}
    found = {str(status): replace(play, status=status) for status in statuses}
    found |= {f"body {name}": replace(play, body=body) for name, body in bodies.items()}
    for done in (False, True):
        lie = "done, " if done else ""
        one = replace(play, done=done)
        found |= {
            f"{lie}504": replace(one, status=504),
            f"{lie}closed": replace(one, cue=Cue.CLOSE),
            f"{lie}reset": replace(one, cue=Cue.RESET),
            f"{lie}cut": replace(one, half=True, cue=Cue.CLOSE),
            f"{lie}silent": replace(one, silent=True),
        }
    return found | {
        "late": replace(play, delay_s=_LATE_S),
        "too late": replace(play, delay_s=_TOO_LONG_S),
        "429 wait": replace(play, status=429, headers={"retry-after": "0.05"}),
    }


def _one_verb() -> dict[str, mem0_answers.Mem0Answer]:
    play = mem0_answers.Mem0Answer
    said = {"id": "e", "event_id": "e", "results": []}
    return {
        "event forgotten": play(verb="event", status=404),
        "event failed": play(verb="event", body=json.dumps(said | {"status": "FAILED"})),
        "event unknown": play(verb="event", body=json.dumps(said | {"status": "PAUSED"})),
        "event pending": play(verb="event", body=json.dumps(said | {"status": "PENDING"})),
        "search foreign": play(verb="search", body=json.dumps({"results": [_STRAY]})),
        "search doubled": play(verb="search", doubled=True),
        "get_all doubled": play(verb="get_all", doubled=True),
    }


CLAUDE = [Misbehaviour(f"claude: {name}", play) for name, play in _claude().items()]
MEM0 = [
    Misbehaviour(f"mem0: {verb} {name}", play)
    for verb in ("add", "event", "search", "get_all")
    for name, play in _mem0(verb).items()
] + [Misbehaviour(f"mem0: {name}", play) for name, play in _one_verb().items()]
