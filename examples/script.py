"""Submit a message, wait for the reply, then stream another one.

Run it beside `afterword up`, or with AFTERWORD_REDIS_URL set to the Redis of your workers:

    python examples/script.py
"""

from __future__ import annotations

import sys

from afterword.producer import JobFailed, NoReplyInTime, Producer


def main() -> int:
    """Return the exit code: 0 if both replies came."""
    with Producer() as producer:
        job = producer.submit(user_id="ann", message="I prefer Celsius.")
        try:
            reply = job.wait(timeout=60)
        except NoReplyInTime as error:
            print(f"no reply yet; ask again later with job id {error.job_id}", file=sys.stderr)
            return 1
        except JobFailed as error:
            print(f"the job ended without a reply: {error.code}", file=sys.stderr)
            return 1
        print(reply.text)
        print(f"[{len(reply.memories)} memories, {reply.usage.output} tokens]")

        job = producer.submit(user_id="ann", message="How warm should my room be?")
        for event in job.stream():
            if event.type == "delta":
                print(event.text, end="", flush=True)
            elif event.type == "restart":
                print("\n[the worker was lost; the reply starts again]")
            elif event.type == "failed":
                print(f"the job ended without a reply: {event.code}", file=sys.stderr)
                return 1
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
