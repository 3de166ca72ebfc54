"""The clients that submit jobs and follow their replies."""
