"""Match events against EventBridge patterns with moto's matcher.

Reads {"patterns": {name: pattern}, "events": {name: event}} and writes {pattern's name: [names of the events that match]}.
Needs moto (see infra/lab/requirements.txt).
"""

import json
import sys

from moto.events.models import EventPattern


def main():
    given = json.load(sys.stdin)
    matched = {}
    for name, pattern in given["patterns"].items():
        matcher = EventPattern.load(json.dumps(pattern))
        matched[name] = [event for event, body in given["events"].items() if matcher.matches_event(body)]
    json.dump(matched, sys.stdout)


if __name__ == "__main__":
    main()
