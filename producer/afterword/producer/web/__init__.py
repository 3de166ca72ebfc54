"""The console: pages for the people who run the fleet, over HTTP, without a build step.

`afterword console` serves it; `afterword[console]` installs what it needs. Pages are made
here, out of templates that escape everything; one small script keeps them current.
"""
