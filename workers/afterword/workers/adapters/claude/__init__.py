"""Claude over Anthropic's Messages API. `client.Claude` implements `afterword.workers.ports.Model`.

`client` makes the calls and enforces the time limits, `events` reads the event stream into an
answer, `reported` what it says beside the text, `errors` translates the API's errors, `rate_limits`
reads its rate-limit headers. Only `client` imports the anthropic SDK.
"""
